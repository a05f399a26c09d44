"use strict";
(() => {
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });

  const more = document.querySelector(".more");
  if (!more) return;

  const FOLDED_TO = 8;
  const changes = [...document.querySelectorAll(".change")];

  function unfold() {
    for (const change of changes) change.hidden = false;
    more.hidden = true;
  }

  for (const change of changes.slice(FOLDED_TO)) change.hidden = true;
  more.hidden = changes.length <= FOLDED_TO;
  more.addEventListener("click", unfold);
  addEventListener("beforeprint", unfold);
})();
