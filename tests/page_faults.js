// What is wrong with the page as it stands: texts that cannot be read or are cut, and a page wider than its window.
const faults = [];
const name = (e) => `${e.tagName.toLowerCase()}.${String(e.className.baseVal ?? e.className)} "${(e.textContent || "").trim().slice(0, 40)}"`;
const parse = (text) => (text.match(/[\d.]+/g) || [0, 0, 0, 0]).map(Number);
const over = (top, below) => {
  const a = top.length > 3 ? top[3] : 1;
  return [0, 1, 2].map((i) => top[i] * a + below[i] * (1 - a));
};
const backdrop = (e) => {
  const layers = [];
  for (let each = e; each; each = each.parentElement) {
    const colour = parse(getComputedStyle(each).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) layers.push(colour);
    if (colour.length < 4 || colour[3] === 1) break;
  }
  return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
};
const luminance = (rgb) => {
  const [r, g, b] = rgb.map((v) => { const s = v / 255; return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (a, b) => { const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
const width = document.documentElement.clientWidth;
if (document.documentElement.scrollWidth > width) faults.push(`overflow: the page is ${document.documentElement.scrollWidth} px wide in a window of ${width}`);
const range = document.createRange();
const scrolls = (e) => e.closest(".scroll, [data-scrolls]");
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const seen = new Map();
while (texts.nextNode()) {
  const node = texts.currentNode, e = node.parentElement;
  if (!node.data.trim() || e.closest("script, style, title, .sr, .sr-only, [hidden]") || !e.checkVisibility({ visibilityProperty: true })) continue;
  const style = getComputedStyle(e);
  const svg = e.namespaceURI.endsWith("svg");
  range.selectNodeContents(node);
  const box = range.getBoundingClientRect();
  if (!box.width) continue;
  const key = `${svg ? style.fill : style.color}|${style.fontSize}|${e.tagName}|${e.className.baseVal ?? e.className}|${e.parentElement.className.baseVal ?? e.parentElement.className}`;
  if (!seen.has(key)) {
    const below = backdrop(e);
    seen.set(key, contrast(over(parse(svg ? style.fill : style.color), below), below));
    const ratio = seen.get(key);
    if (ratio < 4.5) faults.push(`contrast: ${ratio.toFixed(2)} of ${name(e)}`);
    if (parseFloat(style.fontSize) < 10.5) faults.push(`small: ${style.fontSize} of ${name(e)}`);
  }
  if (!scrolls(e) && (box.left < -0.5 || box.right > width + 0.5)) faults.push(`clipped: ${name(e)} reaches from ${box.left} to ${box.right}`);
}
for (const e of document.querySelectorAll("body *:not(.sr-only)")) {
  const style = getComputedStyle(e);
  const hides = /hidden|clip/.test(style.overflowX) || style.textOverflow === "ellipsis";
  if (hides && e.scrollWidth > e.clientWidth + 1 && e.textContent.trim() && !(e instanceof SVGElement)) faults.push(`clipped: ${name(e)} hides ${e.scrollWidth - e.clientWidth} px`);
}
for (const box of document.querySelectorAll(".scroll")) {
  if (box.scrollWidth > box.clientWidth + 1 && !box.parentElement.classList.contains("over")) faults.push(`hint: nothing says that ${name(box)} scrolls`);
}
for (const svg of document.querySelectorAll("svg")) {
  const ticks = [...svg.querySelectorAll(":scope > text.tick")].map((t) => t.getBoundingClientRect()).filter((b) => b.width).sort((a, b) => a.left - b.left);
  ticks.forEach((b, i) => { if (i && b.left < ticks[i - 1].right - 0.5) faults.push(`overlap: two ticks of ${name(svg.closest("figure, article") || svg)}`); });
}
return [...new Set(faults)];
