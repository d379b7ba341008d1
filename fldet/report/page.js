"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const form = document.querySelector(".filters");
  const field = form.elements;
  const kindFields = [...form.querySelectorAll("input[name=kind]")];
  const cards = [...document.querySelectorAll(".card")];
  const dialog = document.querySelector("dialog");
  const usual = field.min.value;
  const POINTING = new Set(["correct", "classification", "localisation"]);
  const SHORT = {  // beside a box: colour alone would not do
    classification: "cls", localisation: "loc", both: "both", duplicate: "dup",
    background: "bkg", missed: "missed", ignored: "ignored",
  };
  let shown = [];  // places of the images that the filters leave
  let open = -1;

  const make = (name, attributes = {}, text = "") => {
    const svg = ["rect", "text"].includes(name);
    const element = svg
      ? document.createElementNS("http://www.w3.org/2000/svg", name)
      : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== "") element.textContent = text;
    return element;
  };

  // The boxes of an image from a score on, of every kind: detections, and objects that are missed.
  const boxesOf = (image, lowest) => {
    const reached = new Set();
    const boxes = [];
    for (const [x, y, w, h, label, place, score, target] of image.found) {
      if (score < lowest) continue;
      const kind = data.states[place];
      if (POINTING.has(kind)) reached.add(target);
      const truth = kind === "classification" ? image.objects[target][4] : label;
      boxes.push({ x, y, w, h, label, truth, kind, score });
    }
    image.objects.forEach(([x, y, w, h, label, crowd], index) => {
      if (!crowd && !reached.has(index)) {
        boxes.push({ x, y, w, h, label, truth: label, kind: "missed", score: null });
      }
    });
    return boxes;
  };

  const filters = () => ({
    label: field.class.selectedIndex - 1,
    set: field.set.value,
    lowest: Number(field.min.value),
    kinds: new Set(kindFields.filter((one) => one.checked).map((one) => one.value)),
    truth: field.truth.checked,
  });

  const ofClass = (box, wanted) =>
    wanted.label < 0 || box.label === wanted.label || box.truth === wanted.label;

  const draw = (svg, image, boxes, wanted) => {
    const parts = [];
    const place = (box, name) =>
      make("rect", { x: box.x, y: box.y, width: box.w, height: box.h, class: name });
    if (wanted.truth) {
      for (const [x, y, w, h, label] of image.objects) {
        if (wanted.label < 0 || label === wanted.label) {
          parts.push(place({ x, y, w, h }, "halo"), place({ x, y, w, h }, "object"));
        }
      }
    }
    // Mistakes come on top.
    for (const box of [...boxes].sort((a, b) => (a.kind !== "correct") - (b.kind !== "correct"))) {
      parts.push(place(box, `halo k-${box.kind}`), place(box, `edge k-${box.kind}`));
      box.edge = parts.at(-1);
    }
    svg.replaceChildren(...parts);
  };

  const counted = (boxes) => {
    const counts = new Map();
    for (const { kind } of boxes) counts.set(kind, (counts.get(kind) || 0) + 1);
    return data.states.filter((kind) => counts.has(kind)).map((kind) => [kind, counts.get(kind)]);
  };

  const update = () => {
    const wanted = filters();
    const all = new Map();
    const everything = wanted.label < 0 && kindFields.every((one) => one.checked);
    let number = 0;
    shown = [];
    data.images.forEach((image, index) => {
      const inSet = !wanted.set || image.set === wanted.set;
      const candidates = inSet
        ? boxesOf(image, wanted.lowest).filter((box) => ofClass(box, wanted)) : [];
      for (const [kind, count] of counted(candidates)) all.set(kind, (all.get(kind) || 0) + count);
      const boxes = candidates.filter((box) => wanted.kinds.has(box.kind));
      cards[index].hidden = !inSet || (!boxes.length && !everything);
      if (cards[index].hidden) return;
      shown.push(index);
      number += boxes.length;
      const svg = cards[index].querySelector("svg");
      draw(svg, image, boxes, wanted);
      const words = counted(boxes).map(([kind, count]) => `${count} ${kind}`);
      svg.setAttribute("aria-label", words.join(", ") || "no boxes");
      cards[index].querySelector(".counts").replaceChildren(
        ...counted(boxes).map(([kind, count]) => {
          const entry = make("span", { title: kind });
          entry.append(make("i", { class: `dot k-${kind}` }), `${count} ${kind}`);
          return entry;
        }));
    });
    for (const one of kindFields) {
      one.closest("label").querySelector("output").value = all.get(one.value) || 0;
    }
    field.score.value = wanted.lowest.toFixed(2);
    form.querySelector("[role=status]").textContent =
      `${shown.length} of ${data.images.length} images, ${number} ${number === 1 ? "box" : "boxes"}`;
  };

  // --- the address: #class=RBC&min=0.5&kind=missed,background&set=random&truth=1

  const isFilter = () => location.hash.includes("=");

  const read = () => {
    const words = new URLSearchParams(isFilter() ? location.hash.slice(1) : "");
    const kinds = words.has("kind") ? words.get("kind").split(",") : null;
    field.class.selectedIndex = data.classes.indexOf(words.get("class")) + 1;
    field.set.value = ["worst", "random"].includes(words.get("set")) ? words.get("set") : "";
    field.min.value = words.has("min") ? words.get("min") : usual;
    field.truth.checked = words.get("truth") === "1";
    for (const one of kindFields) one.checked = !kinds || kinds.includes(one.value);
  };

  const write = () => {
    const words = new URLSearchParams();
    if (field.class.selectedIndex > 0) words.set("class", field.class.value);
    if (field.set.value) words.set("set", field.set.value);
    if (field.min.value !== usual) words.set("min", field.min.value);
    if (field.truth.checked) words.set("truth", "1");
    const kinds = kindFields.filter((one) => one.checked).map((one) => one.value);
    if (kinds.length < kindFields.length) words.set("kind", kinds.join(","));
    history.replaceState(null, "", `#${words.toString().replaceAll("%2C", ",") || "gallery"}`);
  };

  const follow = () => {
    if (!isFilter()) return;
    read();
    update();
    document.getElementById("gallery").scrollIntoView();
  };

  form.addEventListener("input", () => { write(); update(); });
  form.addEventListener("reset", () => setTimeout(() => { write(); read(); update(); }));
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", follow);

  // --- one image, large

  const tag = (svg, image, boxes) => {
    const size = (13 * image.size[0]) / svg.clientWidth;
    for (const box of boxes) {
      const right = box.kind === "correct";  // its score stands at the foot, out of the way
      const score = box.score === null ? "" : box.score.toFixed(2).replace("0.", ".");
      const text = right ? score : `${data.classes[box.label]} ${SHORT[box.kind]} ${score}`;
      const top = box.y > 1.3 * size ? box.y - 0.35 * size : box.y + 1.1 * size;
      const y = right ? box.y + box.h - 0.35 * size : top;
      svg.append(make("text", { x: Math.max(box.x, 0), y, style: `font-size:${size}px` }, text));
    }
  };

  const list = (boxes) => {
    const table = make("table");
    const head = table.createTHead().insertRow();
    for (const name of ["kind", "class", "score"]) head.append(make("th", { scope: "col" }, name));
    const body = table.createTBody();
    for (const box of boxes) {
      const row = body.insertRow();
      const kind = row.insertCell();
      kind.append(make("i", { class: `dot k-${box.kind}` }), box.kind);
      const was = box.truth !== box.label ? `, is ${data.classes[box.truth]}` : "";
      row.insertCell().textContent = data.classes[box.label] + was;
      row.insertCell().textContent = box.score === null ? "-" : box.score.toFixed(2);
      row.tabIndex = 0;
      for (const [event, on] of [["mouseenter", 1], ["focus", 1], ["mouseleave", 0], ["blur", 0]]) {
        row.addEventListener(event, () => box.edge.classList.toggle("chosen", Boolean(on)));
      }
    }
    return table;
  };

  const show = (index) => {
    open = index;
    const image = data.images[index];
    const wanted = filters();
    const boxes = boxesOf(image, wanted.lowest)
      .filter((box) => ofClass(box, wanted) && wanted.kinds.has(box.kind))
      .sort((a, b) => (a.kind === "correct") - (b.kind === "correct") || b.score - a.score);
    const svg = dialog.querySelector("svg");
    dialog.querySelector("h3").textContent =
      `${image.name}: costs ${image.cost.toFixed(2)} points of AP50`;
    const picture = dialog.querySelector("img");
    picture.src = cards[index].querySelector("img").src;
    [picture.width, picture.height] = image.size;
    dialog.style.setProperty("--shape", image.size[0] / image.size[1]);
    svg.setAttribute("viewBox", `0 0 ${image.size.join(" ")}`);
    if (!dialog.open) dialog.showModal();
    draw(svg, image, boxes, wanted);
    tag(svg, image, boxes);
    dialog.querySelector(".boxes").replaceChildren(list(boxes));
  };

  const step = (by) => {
    const place = shown.indexOf(open) + by;
    if (place >= 0 && place < shown.length) show(shown[place]);
  };

  cards.forEach((card, index) => {
    card.querySelector("button").addEventListener("click", () => show(index));
  });
  dialog.querySelector("[name=back]").addEventListener("click", () => step(-1));
  dialog.querySelector("[name=on]").addEventListener("click", () => step(1));
  dialog.querySelector("[name=close]").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });

  read();
  update();
  if (isFilter()) document.getElementById("gallery").scrollIntoView({ behavior: "instant" });
  document.body.dataset.ready = "1";
})();
