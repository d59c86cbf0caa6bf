"use strict";
// Where a head looks: weights of every position on every one, 16 bits each, and the picture to paint them on.
function looker(root) {
  const data = JSON.parse(root.querySelector(".data").textContent);
  const [block, head] = [root.querySelector(".block"), root.querySelector(".head")];
  const canvas = root.querySelector("canvas"), buttons = [...root.querySelectorAll(".words button")];
  const tells = root.querySelector(".tells"), decoded = new Map();
  let asks = data.tokens.length ? lastOfPrompt() : data.patches[middle()];

  function lastOfPrompt() {
    const prompt = data.tokens.filter((token) => !token.answer);
    return prompt[prompt.length - 1].place;
  }

  function middle() { return (data.side >> 1) * data.side + (data.side >> 1); }

  function weightsOf(name) {
    if (!decoded.has(name)) {
      const bytes = Uint8Array.from(atob(data.weights[name]), (letter) => letter.charCodeAt(0));
      const view = new DataView(bytes.buffer);
      decoded.set(name, (index) => view.getUint16(2 * index, true) / 65535);
    }
    return decoded.get(name);
  }

  function row() {
    const weight = weightsOf(block.value), heads = [...Array(data.heads).keys()], one = Number(head.value);
    const chosen = one < 0 ? heads : [one], found = new Float64Array(data.size);
    for (const each of chosen) {
      const start = (each * data.size + asks) * data.size;
      for (let key = 0; key < data.size; key++) found[key] += weight(start + key) / chosen.length;
    }
    return found;
  }

  function show() {
    const weights = row();
    const onPicture = data.patches.map((place) => weights[place]);
    if (canvas) paint(onPicture);
    const most = Math.max(1e-9, ...data.tokens.map((token) => weights[token.place]));
    buttons.forEach((button, number) => {
      const weight = weights[data.tokens[number].place];
      button.style.setProperty("--weight", (0.75 * Math.sqrt(weight / most)).toFixed(3));
      button.classList.toggle("asks", data.tokens[number].place === asks);
      button.title = percent(weight);
    });
    tell(weights, onPicture.reduce((sum, weight) => sum + weight, 0));
  }

  function paint(onPicture) {
    const size = 448, cell = size / data.side, most = Math.max(1e-9, ...onPicture), ink = canvas.getContext("2d");
    canvas.width = canvas.height = size;
    onPicture.forEach((weight, number) => {
      const [x, y] = [(number % data.side) * cell, Math.floor(number / data.side) * cell];
      ink.fillStyle = `rgba(0, 0, 0, ${(0.82 * (1 - Math.sqrt(weight / most))).toFixed(3)})`;
      ink.fillRect(x, y, cell, cell);
    });
    const here = data.patches.indexOf(asks);
    if (here >= 0) {
      ink.lineWidth = 4;
      ink.strokeStyle = "#4fc3ff";
      ink.strokeRect((here % data.side) * cell + 2, Math.floor(here / data.side) * cell + 2, cell - 4, cell - 4);
    }
  }

  function tell(weights, picture) {
    const named = nameOf(asks), best = [...weights.keys()].sort((a, b) => weights[b] - weights[a]).slice(0, 3);
    const listed = best.map((place) => `${nameOf(place)} ${percent(weights[place])}`).join(", ");
    const share = data.tokens.length && data.side ? ` ${percent(picture)} of its attention is on the picture.` : "";
    tells.textContent = `${named} looks most at ${listed}.${share}`;
  }

  function nameOf(place) {
    const token = data.tokens.find((each) => each.place === place), patch = data.patches.indexOf(place);
    return token ? token.text : `row ${Math.floor(patch / data.side)}, column ${patch % data.side}`;
  }

  function percent(part) { return `${(100 * part).toFixed(1)} %`; }

  function point(event) {
    const box = canvas.getBoundingClientRect(), at = (offset, length) =>
      Math.max(0, Math.min(data.side - 1, Math.floor((offset / length) * data.side)));
    asks = data.patches[at(event.clientY - box.top, box.height) * data.side + at(event.clientX - box.left, box.width)];
    show();
  }

  function move(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -data.side, ArrowDown: data.side };
    if (!(event.key in steps)) return;
    event.preventDefault();
    const here = data.patches.indexOf(asks), next = (here < 0 ? middle() : here) + steps[event.key];
    if (next >= 0 && next < data.patches.length) asks = data.patches[next];
    show();
  }

  buttons.forEach((button, number) => {
    for (const kind of ["pointerenter", "focus", "click"])
      button.addEventListener(kind, () => { asks = data.tokens[number].place; show(); });
  });
  if (canvas) {
    for (const kind of ["pointermove", "pointerdown"]) canvas.addEventListener(kind, point);
    canvas.addEventListener("keydown", move);
  }
  block.selectedIndex = block.length >> 1;
  for (const select of [block, head]) select.addEventListener("change", show);
  show();
}

// A table for each token of the answer; one is shown, in every panel the same.
function chooser(roots) {
  const selects = roots.map((root) => root.querySelector("select"));
  function choose(value) {
    roots.forEach((root, number) => {
      selects[number].value = value;
      for (const each of root.querySelectorAll("[data-step]")) each.hidden = each.dataset.step !== value;
    });
  }
  selects.forEach((select) => select.addEventListener("change", () => choose(select.value)));
}

document.querySelectorAll(".look").forEach(looker);
chooser([...document.querySelectorAll(".steps")]);
