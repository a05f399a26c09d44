// The list of examples: only the rows in sight are elements, and the filter stands in the page's address.
(() => {
  const root = document.querySelector(".browser");
  if (!root) return;

  const ROW_PX = 64;
  const SPARE_ROWS = 6;
  const CATEGORIES_AT_MOST = 300;
  const TONES = { fixed: "good", better: "good", broken: "bad", worse: "bad" };
  const { arms, suites, examples } = listing.read(document.getElementById("listing"));
  const rows = root.querySelector(".rows");
  const spacer = root.querySelector(".spacer");
  const count = root.querySelector(".count");
  const detail = root.querySelector(".detail");
  const fields = Object.fromEntries([...root.querySelectorAll("[name]")].map((field) => [field.name, field]));
  let passing = [];
  let chosen = null;
  let from = 0;
  let to = 0;

  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function isolated(text) {
    return text.trim() ? element("bdi", "", text) : element("em", "quiet", "empty");
  }

  function fill(select, options, keep) {
    select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
    select.value = options.some(([value]) => value === keep) ? keep : options[0][0];
  }

  function chip(example) {
    const state = listing.stateOf(example, from, to);
    return element("span", `chip ${TONES[state] ?? "neutral"}`, listing.STATES[state]);
  }

  // One line of a text; what is beyond it is not even made an element.
  function line(className, text) {
    const made = element("span", className);
    made.append(isolated(text.slice(0, 200).replace(/\s+/g, " ")));
    return made;
  }

  function rowOf(index) {
    const example = passing[index];
    const row = element("div", "row");
    row.id = `row-${index}`;
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", String(example === chosen));
    row.setAttribute("aria-setsize", passing.length);
    row.setAttribute("aria-posinset", index + 1);
    row.style.transform = `translateY(${index * ROW_PX}px)`;
    const answer = listing.answerOf(example, to);
    const texts = element("span", "texts");
    texts.append(line("input", example.texts[0]));
    texts.append(answer ? line("answer", answer.text) : element("span", "answer", listing.scoreOf(example, to) ?? "not measured"));
    row.append(chip(example), texts, element("code", "", example.id));
    return row;
  }

  function draw() {
    const first = Math.max(0, Math.floor(rows.scrollTop / ROW_PX) - SPARE_ROWS);
    const last = Math.min(passing.length, Math.ceil((rows.scrollTop + rows.clientHeight) / ROW_PX) + SPARE_ROWS);
    const drawn = [];
    for (let index = first; index < last; index += 1) drawn.push(rowOf(index));
    spacer.replaceChildren(...drawn);
    const active = chosen ? passing.indexOf(chosen) : -1;
    if (active >= first && active < last) rows.setAttribute("aria-activedescendant", `row-${active}`);
    else rows.removeAttribute("aria-activedescendant");
  }

  function entry(list, term, content, note) {
    const given = element("dd");
    given.append(content);
    if (note) given.append(" ", element("em", "quiet", note));
    list.append(element("dt", "", term), given);
  }

  function show(example) {
    chosen = example;
    detail.replaceChildren();
    detail.hidden = !example;
    if (!example) return;
    const { suite } = example;
    const header = element("header");
    header.append(chip(example), element("code", "", example.id));
    header.append(element("small", "", `${suite.name}, ${example.category}; ${suite.metric}`));
    const list = element("dl");
    entry(list, "Input", isolated(example.texts[0]));
    arms.forEach((arm, place) => {
      const answer = listing.answerOf(example, place);
      const score = listing.scoreOf(example, place);
      if (answer === null && score === null) return;
      const several = suite.repeats > 1 && answer ? `first of ${suite.repeats} answers` : "";
      const scored = suite.binary && suite.repeats === 1 ? "" : score;
      const notes = [answer?.cut ? "cut off at the token limit" : "", several, answer ? scored : ""];
      entry(list, arm, answer ? isolated(answer.text) : element("span", "", score), notes.filter(Boolean).join("; "));
    });
    example.references.forEach((place, number) => {
      entry(list, number ? "or" : "Reference", isolated(example.texts[place]));
    });
    detail.append(header, list);
  }

  function choose(index) {
    if (!passing.length) return;
    const place = Math.min(passing.length - 1, Math.max(0, index));
    show(passing[place]);
    const top = place * ROW_PX;
    if (top < rows.scrollTop) rows.scrollTop = top;
    else if (top + ROW_PX > rows.scrollTop + rows.clientHeight) rows.scrollTop = top + ROW_PX - rows.clientHeight;
    draw();
    remember();
  }

  function values() {
    return Object.fromEntries(Object.entries(fields).map(([name, field]) => [name, field.value]));
  }

  function update() {
    const given = values();
    from = arms.indexOf(given.from);
    to = arms.indexOf(given.to);
    const found = listing.filtered(examples, { ...given, from, to });
    passing = found.passing;
    const all = Object.values(found.counts).reduce((sum, number) => sum + number, 0);
    const states = Object.entries(listing.STATES).filter(([name]) => found.counts[name] || name === given.state);
    const options = states.map(([name, words]) => [name, `${words} (${found.counts[name]})`]);
    fill(fields.state, [["", `any (${all})`], ...options], given.state);
    count.textContent = passing.length ? `${passing.length} of ${examples.length} listed examples` : "No listed example matches.";
    rows.hidden = !passing.length;
    spacer.style.height = `${passing.length * ROW_PX}px`;
    rows.scrollTop = 0;
    show(passing.includes(chosen) ? chosen : (passing[0] ?? null));
    draw();
  }

  function fillCategories(keep) {
    const known = new Set();
    for (const suite of suites) {
      if (fields.suite.value && suite.name !== fields.suite.value) continue;
      for (const category of suite.categories) known.add(category);
    }
    const offered = [...known].slice(0, CATEGORIES_AT_MOST);
    if (keep && known.has(keep) && !offered.includes(keep)) offered.push(keep);
    fill(fields.category, [["", "any"], ...offered.map((name) => [name, name])], keep);
  }

  function remember() {
    const usual = { q: "", from: usualArm("base"), to: usualArm("tuned"), state: "", suite: "", category: "" };
    const given = Object.entries(values()).filter(([name, value]) => value !== usual[name]);
    if (chosen && chosen !== passing[0]) given.push(["suite-of", chosen.suite.name], ["example", chosen.id]);
    const address = given.length ? `#samples?${new URLSearchParams(given)}` : "#samples";
    if (given.length || location.hash.startsWith("#samples")) history.replaceState(null, "", address);
  }

  function usualArm(name) {
    return arms.includes(name) ? name : (arms[0] ?? "");
  }

  function recall() {
    const [section, query] = location.hash.split("?");
    const given = new URLSearchParams(section === "#samples" ? query : "");
    fields.q.value = given.get("q") ?? "";
    const choices = arms.length ? arms.map((name) => [name, name]) : [["", "not measured"]];
    fill(fields.from, choices, given.get("from") ?? usualArm("base"));
    fill(fields.to, choices, given.get("to") ?? usualArm("tuned"));
    fill(fields.suite, [["", "all"], ...suites.map(({ name }) => [name, name])], given.get("suite") ?? "");
    fillCategories(given.get("category") ?? "");
    const state = given.get("state") ?? "";
    fill(fields.state, [["", "any"], ...Object.entries(listing.STATES)], state);
    update();
    const wanted = passing.findIndex(({ suite, id }) => id === given.get("example") && suite.name === given.get("suite-of"));
    if (wanted >= 0) choose(wanted);
    if (section === "#samples" && query) document.getElementById("browser-title").scrollIntoView();
  }

  const STEPS = { ArrowDown: 1, ArrowUp: -1, PageDown: 5, PageUp: -5, Home: -Infinity, End: Infinity };
  rows.addEventListener("keydown", (event) => {
    if (!(event.key in STEPS)) return;
    event.preventDefault();
    choose(passing.indexOf(chosen) + STEPS[event.key]);
  });
  rows.addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (row) choose(Number(row.id.slice("row-".length)));
  });
  let waiting = false;
  rows.addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      draw();
    });
  });
  for (const [name, field] of Object.entries(fields)) {
    field.addEventListener("input", () => {
      if (name === "suite") fillCategories(fields.category.value);
      update();
      remember();
    });
  }
  addEventListener("hashchange", recall);
  root.hidden = false;
  recall();
})();
