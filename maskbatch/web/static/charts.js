"use strict";
// Charts as SVG, numbers by locale. Text is only ever set with textContent.
const Web = (() => {
  const NS = "http://www.w3.org/2000/svg", locale = navigator.language || "en";
  const percent = new Intl.NumberFormat(locale, {style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1});
  const whole = new Intl.NumberFormat(locale, {style: "percent", maximumFractionDigits: 0});
  const integer = new Intl.NumberFormat(locale, {maximumFractionDigits: 0});
  const decimal = new Intl.NumberFormat(locale, {maximumFractionDigits: 1});
  const two = new Intl.NumberFormat(locale, {minimumFractionDigits: 2, maximumFractionDigits: 2});
  const three = new Intl.NumberFormat(locale, {minimumFractionDigits: 3, maximumFractionDigits: 3});
  const formats = {percent: v => percent.format(v), integer: v => integer.format(v), decimal: v => two.format(v),
    p: v => v < 0.001 ? "< " + three.format(0.001) : three.format(v),
    duration: v => v >= 3600 ? decimal.format(v / 3600) + " h" : decimal.format(v) + " s"};
  function svg(tag, attributes, parent, text) {
    const node = document.createElementNS(NS, tag);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    if (text !== undefined) node.textContent = text;
    if (parent) parent.appendChild(node);
    return node;
  }
  // Asking for a style or a width after the page has changed lays it out anew, so both are asked for once per round (`begin`).
  let colours = new Map(), widths = new Map();
  function css(name) {
    if (!colours.has(name)) colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
    return colours.get(name);
  }
  function begin(boxes) { colours = new Map(); widths = new Map(); for (const box of boxes) widths.set(box, box.clientWidth); }
  const tip = document.createElement("div");
  tip.className = "tip hidden"; tip.setAttribute("aria-hidden", "true"); document.body.appendChild(tip);
  // One listener for every mark of every chart: marks carry their words in data-tip.
  function tell(target, x, y) {
    const mark = target && target.closest ? target.closest("[data-tip]") : null;
    if (!mark) { tip.className = "tip hidden"; return; }
    tip.textContent = mark.getAttribute("data-tip"); tip.className = "tip";
    tip.style.left = Math.min(x + 14, innerWidth - tip.offsetWidth - 8) + "px"; tip.style.top = Math.max(4, y - 14 - tip.offsetHeight) + "px";
  }
  document.addEventListener("mousemove", e => tell(e.target, e.clientX, e.clientY));
  document.addEventListener("focusin", e => { if (e.target.hasAttribute("data-tip")) { const r = e.target.getBoundingClientRect(); tell(e.target, r.left, r.top); } });
  document.addEventListener("keydown", e => {
    if (e.key === "Escape") tip.className = "tip hidden";
    const mark = e.target.closest && e.target.closest("[data-tip]");
    if (!mark || (e.key !== "ArrowRight" && e.key !== "ArrowLeft")) return;
    const all = [...mark.closest("svg").querySelectorAll("[data-tip]")];
    const next = all[all.indexOf(mark) + (e.key === "ArrowRight" ? 1 : -1)];
    if (next) { mark.setAttribute("tabindex", "-1"); next.setAttribute("tabindex", "0"); next.focus(); e.preventDefault(); }
  });
  function canvas(box, width, height, label) {
    const old = box.querySelector("svg");
    const root = svg("svg", {viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": label});
    old ? box.replaceChild(root, old) : box.appendChild(root);
    return root;
  }
  function mark(node, words, first) {
    node.setAttribute("data-tip", words); node.setAttribute("role", "img"); node.setAttribute("aria-label", words.replace(/\n/g, ", "));
    node.setAttribute("tabindex", first ? "0" : "-1");
  }
  function short(text, length) { return text.length > length ? text.slice(0, length - 1) + "…" : text; }
  function wording(item, noun) {
    const around = item.low === null || item.low === undefined ? "" : ` (${percent.format(item.low)} – ${percent.format(item.high)})`;
    return `${item.name}\n${item.hidden ? "< 5" : percent.format(item.share) + around}\n${item.hidden ? "" : integer.format(item.n) + " " + noun}${item.warn ? "\n" + item.warn : ""}`;
  }
  // Horizontal: a dot with its interval per name, for cameras and weekdays.
  function dots(box, items, options) {
    const rows = items.length, step = rows > 60 ? 14 : 22, left = 130, width = Math.max(320, widths.get(box) || 480), height = rows * step + 30;
    const root = canvas(box, width, height, options.title), right = width - 66, x = v => left + v * (right - left);
    for (const v of [0, .25, .5, .75, 1]) {
      svg("line", {x1: x(v), x2: x(v), y1: 4, y2: rows * step + 6, stroke: css("--line")}, root);
      svg("text", {x: x(v), y: rows * step + 22, "text-anchor": "middle"}, root, whole.format(v));
    }
    items.forEach((item, i) => {
      const y = i * step + step / 2 + 4, group = svg("g", {}, root);
      svg("rect", {x: 0, y: y - step / 2, width, height: step, fill: "transparent"}, group);
      svg("text", {x: left - 10, y: y + 4, "text-anchor": "end", class: "strong"}, group, (item.warn ? "⚠ " : "") + short(item.name, 19));
      if (!item.hidden) {
        if (item.low !== null) svg("line", {x1: x(item.low), x2: x(item.high), y1: y, y2: y, stroke: css("--accent"), "stroke-width": 5, opacity: .35, "stroke-linecap": "round"}, group);
        svg("circle", {cx: x(item.share), cy: y, r: 4, fill: item.low === null ? "none" : css("--accent"), stroke: css("--accent"), "stroke-width": 1.5}, group);
        svg("text", {x: right + 12, y: y + 4}, group, percent.format(item.share));
      }
      mark(group, wording(item, options.noun), i === 0);
    });
  }
  // A line with its band over an ordered axis, and beneath it how many stand behind each point.
  function line(box, items, options) {
    const width = Math.max(320, widths.get(box) || 480), height = 230, left = 44, right = width - 12, top = 10, bottom = 160, base = 205;
    const root = canvas(box, width, height, options.title), n = items.length, step = (right - left) / Math.max(1, n), x = i => left + step * (i + .5), y = v => bottom - v * (bottom - top);
    for (const v of [0, .25, .5, .75, 1]) {
      svg("line", {x1: left, x2: right, y1: y(v), y2: y(v), stroke: css("--line")}, root);
      svg("text", {x: left - 6, y: y(v) + 4, "text-anchor": "end"}, root, whole.format(v));
    }
    const most = Math.max(1, ...items.map(item => item.n));
    let path = "", open = false, area = [], parts = [];
    const close = () => { if (area.length) parts.push(area); area = []; };
    items.forEach((item, i) => {
      const good = item.n > 0 && !item.hidden;
      if (good) { path += (open ? "L" : "M") + x(i) + " " + y(item.share); open = true; } else open = false;
      good && item.low !== null ? area.push([x(i), y(item.high), y(item.low)]) : close();
    });
    close();
    for (const a of parts) {
      const wide = a.length === 1 ? [[a[0][0] - 3, a[0][1], a[0][2]], [a[0][0] + 3, a[0][1], a[0][2]]] : a;
      svg("path", {d: "M" + wide.map(p => p[0] + " " + p[1]).join("L") + "L" + wide.slice().reverse().map(p => p[0] + " " + p[2]).join("L") + "Z", fill: css("--accent"), opacity: .2}, root);
    }
    svg("path", {d: path || "M0 0", fill: "none", stroke: css("--accent"), "stroke-width": 2}, root);
    const every = Math.ceil(n / Math.max(1, Math.floor((right - left) / (options.tick || 48))));
    let first = true;
    items.forEach((item, i) => {
      if (i % every === 0) svg("text", {x: x(i), y: height - 6, "text-anchor": "middle"}, root, item.tick || item.name);
      if (!item.n && !item.warn) return;
      const group = svg("g", {}, root), h = (base - bottom - 10) * item.n / most;
      svg("rect", {x: x(i) - step / 2, y: top, width: step, height: base - top, fill: "transparent"}, group);
      svg("rect", {x: x(i) - step * .4, y: base - h, width: step * .8, height: h, fill: css("--soft"), opacity: .45}, group);
      if (item.warn) svg("rect", {x: x(i) - step * .4, y: base + 1, width: step * .8, height: 4, fill: css("--warn")}, group);
      if (item.n && !item.hidden && n <= 80) svg("circle", {cx: x(i), cy: y(item.share), r: 2.6, fill: css("--accent")}, group);
      mark(group, item.n ? wording(item, options.noun) : `${item.name}\n${item.warn}`, first); first = false;
    });
  }
  function bars(box, items, options) {
    const width = Math.max(320, widths.get(box) || 480), height = 180, left = 54, right = width - 10, top = 8, bottom = 150;
    const root = canvas(box, width, height, options.title), step = (right - left) / Math.max(1, items.length), most = Math.max(options.most || 1, ...items.map(i => i.n)), format = options.format || (v => integer.format(v));
    for (const v of [0, .5, 1]) {
      svg("line", {x1: left, x2: right, y1: bottom - v * (bottom - top), y2: bottom - v * (bottom - top), stroke: css("--line")}, root);
      svg("text", {x: left - 6, y: bottom - v * (bottom - top) + 4, "text-anchor": "end"}, root, format(v * most));
    }
    const every = Math.ceil(items.length / Math.max(1, Math.floor((right - left) / (options.tick || 40))));
    items.forEach((item, i) => {
      const group = svg("g", {}, root); let at = bottom;
      svg("rect", {x: left + i * step, y: top, width: step, height: bottom - top, fill: "transparent"}, group);
      (item.parts || [item.n]).forEach((value, k) => {
        const h = (bottom - top) * value / most; at -= h;
        svg("rect", {x: left + i * step + step * .08, y: at, width: step * .84, height: h, fill: item.parts ? css("--label-" + k) : css("--accent")}, group);
      });
      if (item.warn) svg("rect", {x: left + i * step + step * .08, y: bottom + 2, width: step * .84, height: 4, fill: css("--warn")}, group);
      if (i % every === 0) svg("text", {x: left + (i + .5) * step, y: height - 10, "text-anchor": "middle"}, root, item.tick || item.name);
      mark(group, `${item.name}\n${item.words || format(item.n)}${item.warn ? "\n" + item.warn : ""}`, i === 0);
    });
  }
  function mix(a, b, t) {
    const p = c => [1, 3, 5].map(i => parseInt(c.slice(i, i + 2), 16)), from = p(a), to = p(b);
    return "rgb(" + from.map((v, i) => Math.round(v + (to[i] - v) * t)).join(",") + ")";
  }
  // Rows × 24 columns. Colour runs over the shares that occur; a cell with nobody is empty.
  function heat(box, rows, options) {
    const step = rows.length > 60 ? 10 : 20, left = 130, width = Math.max(480, widths.get(box) || 480), cell = (width - left - 8) / 24, height = rows.length * step + 44;
    const root = canvas(box, width, height, options.title), all = rows.flatMap(r => r.cells.filter(c => c.n && !c.hidden).map(c => c.share));
    const low = Math.floor(Math.min(1, ...all) * 20) / 20, high = Math.ceil(Math.max(0, ...all) * 20) / 20, a = css("--heat-low"), b = css("--heat-high");
    let first = true;
    rows.forEach((row, r) => {
      svg("text", {x: left - 8, y: r * step + step / 2 + 4, "text-anchor": "end", class: "strong"}, root, short(row.name, 19));
      row.cells.forEach((c, h) => {
        const rect = svg("rect", {x: left + h * cell, y: r * step, width: cell - 1, height: step - 1, fill: c.n && !c.hidden ? mix(a, b, high > low ? (c.share - low) / (high - low) : 1) : css("--none")}, root);
        if (c.n) { mark(rect, wording(c, options.noun), first); first = false; }
      });
    });
    for (let h = 0; h < 24; h += 3) svg("text", {x: left + (h + .5) * cell, y: rows.length * step + 14, "text-anchor": "middle"}, root, String(h).padStart(2, "0"));
    for (let i = 0; i < 40; i++) svg("rect", {x: left + i * 4, y: rows.length * step + 24, width: 4, height: 8, fill: mix(a, b, i / 39)}, root);
    svg("text", {x: left - 8, y: rows.length * step + 32, "text-anchor": "end"}, root, whole.format(low));
    svg("text", {x: left + 168, y: rows.length * step + 32}, root, whole.format(high));
  }
  async function unpack(text, layout) {
    const raw = Uint8Array.fromBase64 ? Uint8Array.fromBase64(text) : Uint8Array.from(atob(text), c => c.charCodeAt(0));
    const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream("gzip"));
    const buffer = await new Response(stream).arrayBuffer(), columns = {};
    let at = 0;
    for (const [name, [kind, length]] of Object.entries(layout)) { columns[name] = new globalThis[kind](buffer, at, length); at += columns[name].byteLength; }
    return columns;
  }
  for (const cell of document.querySelectorAll("[data-n]")) cell.textContent = formats[cell.dataset.f](Number(cell.dataset.n));
  for (const swatch of document.querySelectorAll("[data-label]")) swatch.style.background = `var(--label-${swatch.dataset.label})`;
  return {begin, dots, line, bars, heat, unpack, percent, integer, decimal, css};
})();
