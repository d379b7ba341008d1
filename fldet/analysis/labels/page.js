"use strict";
(() => {
  const form = document.querySelector(".filters");
  const kinds = [...form.querySelectorAll("input[name=kind]")];
  const cards = [...document.querySelectorAll(".card")];
  const dialog = document.querySelector("dialog");
  let shown = cards;  // that the filters leave
  let open = null;

  const update = () => {
    const lowest = Number(form.elements.min.value);
    const wanted = new Set(kinds.filter((one) => one.checked).map((one) => one.value));
    shown = cards.filter((card) => {
      const fits = wanted.has(card.dataset.kind) && Number(card.dataset.score) >= lowest;
      card.hidden = !fits;
      return fits;
    });
    form.elements.score.value = lowest.toFixed(2);
    form.querySelector("[role=status]").textContent = `${shown.length} of ${cards.length} findings`;
  };

  const show = (card) => {
    open = card;
    const [words, file] = card.querySelectorAll("p");
    const frame = card.querySelector(".frame").cloneNode(true);
    const picture = frame.querySelector("img");
    dialog.style.setProperty("--shape", picture.width / picture.height);
    const place = `${shown.indexOf(card) + 1} of ${shown.length}`;
    dialog.querySelector("h3").textContent = `${place}: ${file.textContent}`;
    dialog.querySelector(".view").replaceChildren(frame);
    dialog.querySelector(".large").textContent = words.textContent;
    if (!dialog.open) dialog.showModal();
  };

  const step = (by) => {
    const next = shown[shown.indexOf(open) + by];
    if (next) show(next);
  };

  for (const card of cards) card.querySelector("button").addEventListener("click", () => show(card));
  dialog.querySelector("[name=back]").addEventListener("click", () => step(-1));
  dialog.querySelector("[name=on]").addEventListener("click", () => step(1));
  dialog.querySelector("[name=close]").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  update();
  if (location.hash === "#first" && shown.length) show(shown[0]);
  document.body.dataset.ready = "1";
})();
