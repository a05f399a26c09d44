// The examples of the page's JSON block, and which of them a filter lets through. Nothing here touches the page.
const listing = (() => {
  const STATES = {
    fixed: "fixed",
    broken: "broken",
    right: "both right",
    wrong: "both wrong",
    better: "better",
    worse: "worse",
    same: "same score",
    unscored: "not scored",
  };

  function read(block) {
    const { arms, suites } = JSON.parse(block.textContent);
    const examples = [];
    for (const suite of suites) {
      for (const [id, category, texts, references, answers, scores] of suite.rows) {
        examples.push({ suite, id, category: suite.categories[category], texts, references, answers, scores, words: null });
      }
      suite.rows = null;
    }
    return { arms, suites, examples };
  }

  // An answer is a place among the example's texts; one that was cut off counts down from -1.
  function answerOf(example, arm) {
    const place = example.answers[arm];
    if (place === null) return null;
    return place < 0 ? { text: example.texts[-1 - place], cut: true } : { text: example.texts[place], cut: false };
  }

  function stateOf(example, from, to) {
    const before = example.scores[from];
    const after = example.scores[to];
    if (before === null || after === null || before === undefined || after === undefined) return "unscored";
    const { binary, lower } = example.suite;
    if (!binary) {
      const gain = lower ? before - after : after - before;
      return gain > 0 ? "better" : gain < 0 ? "worse" : "same";
    }
    const best = lower ? 0 : 1;
    if (after === best) return before === best ? "right" : "fixed";
    return before === best ? "broken" : "wrong";
  }

  function wordsOf(example) {
    example.words ??= `${example.id}\n${example.texts.join("\n")}`.toLowerCase();
    return example.words;
  }

  // The examples that pass, and how many of each state pass all but the choice of a state.
  function filtered(examples, { q, from, to, state, suite, category }) {
    const words = q.toLowerCase().trim();
    const counts = Object.fromEntries(Object.keys(STATES).map((name) => [name, 0]));
    const passing = [];
    for (const example of examples) {
      if (suite && example.suite.name !== suite) continue;
      if (category && example.category !== category) continue;
      if (words && !wordsOf(example).includes(words)) continue;
      const found = stateOf(example, from, to);
      counts[found] += 1;
      if (!state || state === found) passing.push(example);
    }
    return { passing, counts };
  }

  function scoreOf(example, arm) {
    const score = example.scores[arm];
    if (score === null || score === undefined) return null;
    const { unit } = example.suite;
    if (unit === "share") return `${(100 * score).toFixed(1)}%`;
    return unit === "score" ? (100 * score).toFixed(1) : `${score.toFixed(unit.includes("/") ? 3 : 1)} ${unit}`;
  }

  return { STATES, read, answerOf, stateOf, filtered, scoreOf };
})();
