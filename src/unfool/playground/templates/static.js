const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const make = (tag, values = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), values);
  element.append(...children);
  return element;
};
const side = data.side;
const places = (norm) => data.norms.find((each) => each.norm === norm).places;
const chosen = { digit: data.start, norm: data.norms[0].norm, eps: data.norms[0].places[1].place, source: "own" };
const strips = data.digits.map((digit) => Object.assign(new Image(), { src: digit.tiles }));

function tile(digit, place) {
  const canvas = make("canvas", { width: side, height: side });
  canvas.getContext("2d").drawImage(strips[digit], place * side, 0, side, side, 0, 0, side, side);
  return canvas;
}

function difference(clean, other, factor) {
  const canvas = make("canvas", { width: side, height: side });
  const [a, b] = [clean, other].map((each) => each.getContext("2d").getImageData(0, 0, side, side).data);
  const image = canvas.getContext("2d").createImageData(side, side);
  for (let i = 0; i < a.length; i += 1) image.data[i] = i % 4 === 3 ? 255 : 127.5 + factor * (b[i] - a[i]);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function offer(name, entries) {
  const box = document.querySelector(`[data-name="${name}"]`);
  box.replaceChildren(...entries.map(({ value, words, picture }) => {
    const input = make("input", { type: "radio", name, value, checked: String(chosen[name]) === String(value) });
    input.addEventListener("change", () => choose(name, value));
    if (picture) input.ariaLabel = words;
    return make("label", {}, input, picture ?? words);
  }));
}

function choose(name, value) {
  chosen[name] = value;
  if (name === "norm") {
    chosen.eps = places(value)[1].place;
    offerEps();
  }
  show();
}

const offerEps = () => offer("eps", places(chosen.norm).map(({ place, words }) => ({ value: place, words })));

function picture(kind, canvas, shown) {
  canvas.role = "img";
  canvas.ariaLabel = shown ? `${kind} image: ${shown.answer}` : kind;
  const words = shown ? [make("b", { textContent: shown.answer }), " ", make("span", { className: "share", textContent: shown.share })] : [];
  const caption = make("figcaption", {}, make("span", { className: "kind", textContent: kind }), ...words);
  return make("figure", { className: shown ? (shown.right ? "right" : "wrong") : "" }, canvas, caption);
}

function bars(seen) {
  const kinds = Object.keys(seen);
  const classes = data.classes.map((_, i) => i).filter((i) => kinds.some((kind) => seen[kind].percents[i] > 0));
  const keys = make("ul", { className: "keys" }, ...kinds.map((kind, i) => make("li", { className: `c${i}` }, make("i"), kind)));
  const rows = classes.flatMap((number) => {
    const lines = kinds.map((kind, i) => {
      const bar = make("i");
      bar.style.width = `${0.8 * seen[kind].percents[number]}%`;
      return make("div", { className: `share-bar c${i}` }, bar, `${seen[kind].percents[number]} %`);
    });
    return [make("span", { textContent: data.classes[number] }), make("div", {}, ...lines)];
  });
  at("bars").replaceChildren(keys, make("div", { className: "shares" }, ...rows));
}

function path(losses) {
  at("path").hidden = !losses;
  if (!losses) return;
  const draw = (tag, values, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(values)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const top = Math.ceil(Math.max(...losses));
  const x = (step) => (260 * step) / (losses.length - 1);
  const y = (loss) => 120 - (120 * loss) / top;
  const grid = [0, top / 2, top].flatMap((loss) => [
    draw("line", { class: "grid", x1: 0, x2: 260, y1: y(loss), y2: y(loss) }),
    draw("text", { x: -6, y: y(loss) + 3, "text-anchor": "end" }, loss),
  ]);
  const ticks = [0, (losses.length - 1) / 2, losses.length - 1].map((step) => draw("text", { x: x(step), y: 133, "text-anchor": "middle" }, step));
  const line = draw("polyline", { class: "line c2", points: losses.map((loss, step) => `${x(step)},${y(loss)}`).join(" ") });
  at("path").querySelector("svg").replaceChildren(...grid, ...ticks, line);
}

function show() {
  const digit = data.digits[chosen.digit];
  const results = digit[`${chosen.norm} ${chosen.eps}`];
  const own = chosen.source === "own";
  const attacked = results[chosen.source];
  at("reverse").disabled = !own;
  const reversed = own && at("reverse").checked ? results.reversed : null;
  const kind = own ? "attacked" : "borrowed";
  const [clean, other] = [digit.clean, attacked].map((each) => tile(chosen.digit, each.tile));
  const pictures = [picture("clean", clean, digit.clean), picture(kind, other, attacked), picture(`difference ×${attacked.factor}`, difference(clean, other, attacked.factor))];
  if (reversed) pictures.push(picture("reversed", tile(chosen.digit, reversed.tile), reversed));
  at("pictures").replaceChildren(...pictures);
  at("said").textContent = (reversed ?? attacked).said;
  at("gate").hidden = !reversed?.gate;
  at("gate").textContent = reversed?.gate ?? "";
  bars({ clean: digit.clean, [kind]: attacked, ...(reversed ? { reversed } : {}) });
  path(reversed?.losses);
}

Promise.all(strips.map((strip) => strip.decode())).then(() => {
  offer("digit", data.digits.map((digit, value) => ({ value, words: digit.name, picture: tile(value, digit.clean.tile) })));
  offer("norm", data.norms.map(({ norm }) => ({ value: norm, words: norm })));
  offer("source", [{ value: "own", words: "this network" }, { value: "borrowed", words: "another network" }]);
  offerEps();
  at("reverse").addEventListener("change", show);
  show();
});
