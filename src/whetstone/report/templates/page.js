"use strict";
(() => {
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });

  const filter = document.querySelector(".filter");
  if (!filter) return;

  const FOLDED_TO = 8;
  const search = filter.querySelector("input");
  const buttons = [...filter.querySelectorAll("button")];
  const more = document.querySelector(".more");
  const none = document.querySelector(".none");
  const changes = [...document.querySelectorAll(".change")].map((element) => ({
    element,
    kind: element.dataset.kind,
    text: element.textContent.toLowerCase(),
  }));
  let kind = "all";
  let folded = true;

  function update() {
    const words = search.value.toLowerCase().trim();
    const matching = changes.filter((change) => ["all", change.kind].includes(kind) && change.text.includes(words));
    const shown = new Set(folded ? matching.slice(0, FOLDED_TO) : matching);
    for (const change of changes) change.element.hidden = !shown.has(change);
    more.hidden = shown.size === matching.length;
    none.hidden = matching.length > 0;
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.show === kind));
  }

  function unfold() {
    folded = false;
    update();
  }

  for (const button of buttons) {
    button.addEventListener("click", () => {
      kind = button.dataset.show;
      update();
    });
  }
  search.addEventListener("input", update);
  more.addEventListener("click", unfold);
  addEventListener("beforeprint", unfold);
  filter.hidden = false;
  update();
})();
