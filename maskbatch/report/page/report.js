"use strict";
(async () => {
  const started = performance.now(), info = JSON.parse(document.getElementById("data").textContent), $ = id => document.getElementById(id);
  const holder = $("columns");
  let columns;
  try { columns = await Web.unpack(holder.textContent, info.layout); }
  catch (error) { $("failure").textContent = "The charts cannot be shown: " + error.message + ". The tables are complete."; $("failure").classList.remove("hidden"); return; }
  holder.remove();  // the text is not needed any more
  const {cell_slot: slots, cell_count: counts, cell_camera: cameras, label, confidence, size} = columns;
  const cells = counts.length, L = info.labels.length, DAY = 86400000, epoch = Date.parse(info.epoch + "T00:00:00Z");
  const names = info.cameras.map(name => name === null ? "unknown camera" : name);
  const days = slots.reduce((most, slot) => Math.max(most, slot), -1) < 0 ? 0 : Math.floor(slots.reduce((m, s) => Math.max(m, s), -1) / 24) + 1;
  const dateOf = day => new Date(epoch + day * DAY), firstWeekday = (new Date(epoch).getUTCDay() + 6) % 7;
  const shortDate = new Intl.DateTimeFormat(navigator.language, {...(days > 366 ? {year: "2-digit"} : {}), month: "short", day: "numeric", timeZone: "UTC"});
  const longDate = new Intl.DateTimeFormat(navigator.language, {dateStyle: "full", timeZone: "UTC"});
  const weekdays = [...Array(7).keys()].map(i => new Intl.DateTimeFormat(navigator.language, {weekday: "short", timeZone: "UTC"}).format(new Date(Date.UTC(2024, 0, 1 + i))));
  const clusters = new Int32Array(cells);
  for (let c = 0; c < cells; c++) clusters[c] = slots[c] >= 0 ? cameras[c] * days + Math.floor(slots[c] / 24) : names.length * days + c;
  const n = new Float64Array(cells), y = new Float64Array(cells);
  const filter = {camera: -1, from: 0, to: Infinity, hourFrom: 0, hourTo: 23, confidence: 0, size: 0, labels: new Uint8Array(L).fill(1)};
  let perLabel, perConfidence, perSize;

  function inTime(slot) {
    if (slot < 0) return filter.from <= 0 && filter.to >= days - 1 && filter.hourFrom === 0 && filter.hourTo === 23;
    const day = Math.floor(slot / 24), hour = slot % 24;
    return day >= filter.from && day <= filter.to && (filter.hourFrom <= filter.hourTo ? hour >= filter.hourFrom && hour <= filter.hourTo : hour >= filter.hourFrom || hour <= filter.hourTo);
  }
  function count() {
    perLabel = new Float64Array(L); perConfidence = [...Array(20)].map(() => new Float64Array(L)); perSize = [...Array(16)].map(() => new Float64Array(L));
    const conf = new Uint32Array((info.steps + 1) * L), sizes = new Uint32Array(256 * L);
    const least = filter.confidence, smallest = filter.size, on = filter.labels, head = info.headline;
    for (let c = 0, row = 0; c < cells; c++) {
      const end = row + counts[c]; let total = 0, correct = 0;
      if ((filter.camera < 0 || cameras[c] === filter.camera) && inTime(slots[c])) {
        for (; row < end; row++) {
          const l = label[row];
          if (on[l] && confidence[row] >= least && size[row] >= smallest) { total++; if (l === head) correct++; conf[confidence[row] * L + l]++; sizes[size[row] * L + l]++; }
        }
      }
      row = end; n[c] = total; y[c] = correct;
    }
    for (let v = 0; v <= info.steps; v++) for (let l = 0; l < L; l++) { const k = conf[v * L + l]; perLabel[l] += k; perConfidence[Math.min(19, Math.floor(v * 20 / info.steps))][l] += k; }
    for (let v = 0; v < 256; v++) for (let l = 0; l < L; l++) perSize[Math.max(0, Math.min(15, Math.floor(v / info.sizes * 2) - 4))][l] += sizes[v * L + l];
  }
  function t(v) { const z = 1.959963984540054; return z + (z ** 3 + z) / (4 * v) + (5 * z ** 5 + 16 * z ** 3 + 3 * z) / (96 * v * v) + (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / (384 * v ** 3); }
  function wilson(p, m, q) { const centre = (p + q * q / (2 * m)) / (1 + q * q / m), half = q / (1 + q * q / m) * Math.sqrt(p * (1 - p) / m + q * q / (4 * m * m)); return [Math.max(0, centre - half), Math.min(1, centre + half)]; }
  function random(seed) { return () => { seed = seed + 0x6D2B79F5 | 0; let x = Math.imul(seed ^ seed >>> 15, 1 | seed); x = x + Math.imul(x ^ x >>> 7, 61 | x) ^ x; return ((x ^ x >>> 14) >>> 0) / 4294967296; }; }
  const drawn = new Map();  // which clusters are drawn, by their number: every chart may use the same draws
  function draws(g) {
    if (!drawn.has(g)) { const next = random(7); drawn.set(g, Uint8Array.from({length: 300 * g}, () => next() * g)); }
    return drawn.get(g);
  }
  // The same intervals as maskbatch/report/statistics/intervals.py; the bootstrap draws fewer times.
  function interval(ys, ns) {
    const g = ns.length; let Y = 0, N = 0;
    for (let i = 0; i < g; i++) { Y += ys[i]; N += ns[i]; }
    if (!N) return {n: 0, share: null, low: null, high: null, clusters: 0};
    const share = Y / N, item = {n: N, share, low: null, high: null, clusters: g, hidden: info.public > N};
    if (g < 5) return item;
    if (share === 0 || share === 1) [item.low, item.high] = wilson(share, g, t(g - 1));
    else if (g < 30) {
      const picks = draws(g), shares = new Float64Array(300);
      for (let d = 0, at = 0; d < 300; d++) { let a = 0, b = 0; for (let i = 0; i < g; i++) { const k = picks[at++]; a += ys[k]; b += ns[k]; } shares[d] = a / b; }
      shares.sort(); item.low = shares[7]; item.high = shares[292];
    } else {
      let v = 0; for (let i = 0; i < g; i++) v += (ys[i] - share * ns[i]) ** 2;
      v *= g / (g - 1) / (N * N); [item.low, item.high] = wilson(share, v > 0 ? share * (1 - share) / v : N, t(g - 1));
    }
    return item;
  }
  // Groups of cells → shares with intervals. Cells are sorted by camera and time, so the cells of a cluster lie together.
  function shares(groupOf, size) {
    const ys = [...Array(size)].map(() => []), ns = [...Array(size)].map(() => []), last = new Float64Array(size).fill(-1);
    for (let c = 0; c < cells; c++) {
      if (!n[c]) continue;
      const g = groupOf(c); if (g < 0) continue;
      if (last[g] !== clusters[c]) { ys[g].push(0); ns[g].push(0); last[g] = clusters[c]; }
      ys[g][ys[g].length - 1] += y[c]; ns[g][ns[g].length - 1] += n[c];
    }
    return ys.map((one, g) => interval(one, ns[g]));
  }
  // Over a long time with few days, empty days are left out of the axis; it says so by its dates.
  const occupied = items => days > 120 && items.filter(item => item.n || item.warn).length < days / 2 ? items.filter(item => item.n || item.warn) : items;
  const coverDays = new Float64Array(days), failedDays = new Float64Array(days), failedOfHour = new Float64Array(24);
  function cover() {
    coverDays.fill(0); failedDays.fill(0); failedOfHour.fill(0);
    const {cover_slot: at, cover_seen: seen, cover_failed: failed, cover_camera: camera} = columns;
    for (let i = 0; i < at.length; i++) {
      const day = Math.floor(at[i] / 24);
      if (day < 0 || day >= days || (filter.camera >= 0 && camera[i] !== filter.camera) || !inTime(at[i])) continue;
      coverDays[day] += seen[i]; failedDays[day] += failed[i]; failedOfHour[((at[i] % 24) + 24) % 24] += failed[i];
    }
  }
  const bad = k => k ? `partial or failed inputs: ${Web.integer.format(k)}` : "";
  const people = n => `${Web.integer.format(n)} ${n === 1 ? info.one : info.noun}`;
  const draw = {
    shares(box, by) {
      const options = {title: box.dataset.title, noun: info.noun};
      if (by === "camera") Web.dots(box, shares(c => cameras[c], names.length).map((item, i) => ({...item, name: names[i], warn: bad(info.failed[i])})).filter(item => item.n), options);
      else if (by === "weekday") Web.dots(box, shares(c => slots[c] < 0 ? -1 : (Math.floor(slots[c] / 24) + firstWeekday) % 7, 7).map((item, i) => ({...item, name: weekdays[i]})).filter(item => item.n), options);
      else if (by === "hour") Web.line(box, shares(c => slots[c] < 0 ? -1 : slots[c] % 24, 24).map((item, i) => ({...item, name: String(i).padStart(2, "0") + ":00", tick: String(i).padStart(2, "0"), warn: bad(failedOfHour[i])})), {...options, tick: 26});
      else Web.line(box, occupied(shares(c => slots[c] < 0 ? -1 : Math.floor(slots[c] / 24), days).map((item, i) => ({...item, name: longDate.format(dateOf(i)), tick: shortDate.format(dateOf(i)), warn: bad(failedDays[i])}))), {...options, tick: 60});
    },
    heat(box) {
      const k = names.length * 24, N = new Float64Array(k), Y = new Float64Array(k);
      for (let c = 0; c < cells; c++) if (n[c] && slots[c] >= 0) { const at = cameras[c] * 24 + slots[c] % 24; N[at] += n[c]; Y[at] += y[c]; }
      const rows = names.map((name, i) => ({name, cells: [...Array(24).keys()].map(h => ({name: `${name}, ${String(h).padStart(2, "0")}:00`, n: N[i * 24 + h], share: Y[i * 24 + h] / N[i * 24 + h], low: null, hidden: N[i * 24 + h] < info.public}))})).filter(r => r.cells.some(c => c.n));
      Web.heat(box, rows.slice(0, 200), {title: box.dataset.title, noun: info.noun});
    },
    classes(box) {
      const total = perLabel.reduce((a, b) => a + b, 0);
      Web.bars(box, info.labels.map((name, i) => ({name, n: perLabel[i], parts: info.labels.map((_, k) => k === i ? perLabel[i] : 0), words: `${people(perLabel[i])}, ${Web.percent.format(total ? perLabel[i] / total : 0)}`})), {title: box.dataset.title, tick: 110});
    },
    histogram(box, by) {
      const source = by === "confidence" ? perConfidence : perSize;
      const items = source.map((parts, i) => {
        const low = by === "confidence" ? i / 20 : 2 ** ((i + 4) / 2), high = by === "confidence" ? (i + 1) / 20 : 2 ** ((i + 5) / 2), f = by === "confidence" ? v => new Intl.NumberFormat(navigator.language, {maximumFractionDigits: 2}).format(v) : v => Web.integer.format(v);
        return {name: `${f(low)} – ${f(high)}`, tick: f(low), n: parts.reduce((a, b) => a + b, 0), parts: [...parts], words: info.labels.map((l, k) => `${l}: ${Web.integer.format(parts[k])}`).join("\n")};
      });
      Web.bars(box, items, {title: box.dataset.title});
    },
    coverage(box) {
      if (!columns.cover_slot.length || !days) { box.closest("figure").classList.add("hidden"); return; }
      Web.bars(box, occupied([...coverDays].map((s, i) => ({name: longDate.format(dateOf(i)), tick: shortDate.format(dateOf(i)), n: s / 3600, warn: bad(failedDays[i])}))), {title: box.dataset.title, tick: 70, most: 0.01, format: v => Web.decimal.format(v && v < 1 ? v * 60 : v) + (v && v < 1 ? " min" : " h")});
    },
  };
  function answer() {
    const all = shares(() => 0, 1)[0], figure = $("figure"), sentence = $("sentence");
    if (!all.n) { if (cells) { figure.textContent = "–"; sentence.textContent = "Nobody is left by these filters."; $("state").textContent = people(0); } return; }
    if (all.hidden) { figure.textContent = "< 5"; sentence.textContent = "Fewer than five people: not shown."; return; }
    figure.textContent = Web.percent.format(all.share);
    sentence.textContent = `${Web.percent.format(all.share)} of ${people(all.n)} ${all.n === 1 ? "is" : "are"} judged ${info.labels[info.headline]} ` + (all.low === null ? `(no interval: too few camera-days, ${Web.integer.format(all.clusters)}).` : `(95 % interval ${Web.percent.format(all.low)} to ${Web.percent.format(all.high)}).`);
    $("state").textContent = `${Web.integer.format(all.n)} of ${Web.integer.format(label.length)} ${info.noun}`;
  }
  function update() {
    const begin = performance.now();
    const boxes = document.querySelectorAll(".chart");
    Web.begin(boxes); count(); cover(); answer();
    for (const box of boxes) draw[box.dataset.kind](box, box.dataset.by);
    document.documentElement.dataset.filterMs = (performance.now() - begin).toFixed(1);
  }
  function read() {
    const value = id => $(id) ? $(id).value : "";
    filter.camera = Number(value("f-camera") || -1);
    const day = text => Math.round((Date.parse(text + "T00:00:00Z") - epoch) / DAY);
    filter.from = value("f-from") ? day(value("f-from")) : 0; filter.to = value("f-to") ? day(value("f-to")) : Infinity;
    filter.hourFrom = Number(value("f-hour-from") || 0); filter.hourTo = Number(value("f-hour-to") || 23);
    if ($("f-confidence")) {
      filter.confidence = Math.round($("f-confidence").value / 100 * info.steps); $("o-confidence").textContent = Web.percent.format($("f-confidence").value / 100);
      filter.size = Number($("f-size").value); $("o-size").textContent = Web.integer.format(filter.size ? 2 ** (filter.size / info.sizes) : 0);
    }
    for (const box of document.querySelectorAll(".f-label")) filter.labels[Number(box.value)] = box.checked ? 1 : 0;
    update();
  }
  const form = $("filters");
  if (form) {
    const present = new Set(cameras);
    names.forEach((name, i) => { if (present.has(i)) { const option = document.createElement("option"); option.value = i; option.textContent = name; $("f-camera").appendChild(option); } });
    for (const [id, chosen] of [["f-hour-from", 0], ["f-hour-to", 23]]) if ($(id)) for (let h = 0; h < 24; h++) { const option = document.createElement("option"); option.value = h; option.textContent = String(h).padStart(2, "0"); option.defaultSelected = h === chosen; $(id).appendChild(option); }
    for (const id of ["f-from", "f-to"]) if ($(id)) { $(id).min = info.epoch; $(id).max = dateOf(Math.max(0, days - 1)).toISOString().slice(0, 10); }
    let queued = 0;
    form.addEventListener("input", () => { cancelAnimationFrame(queued); queued = requestAnimationFrame(read); });
    form.addEventListener("reset", () => setTimeout(read));
    form.addEventListener("submit", e => e.preventDefault());
    read();
  } else update();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", update);
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; update(); } });
  document.documentElement.dataset.readyMs = performance.now().toFixed(0);
  document.documentElement.dataset.decodeMs = (performance.now() - started).toFixed(0);
})();
