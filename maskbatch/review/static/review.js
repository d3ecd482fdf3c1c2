"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const CELL = { w: 150, h: 170 };
  const PAGE = 200;
  let about = null, selection = null, columns = 1, focus = 0, anchor = null;
  let picked = new Set();
  let rows = new Map(), loading = new Map(), drawing = null, openRow = null;

  const ask = async (path, body) => {
    const answer = await fetch(path, body === undefined ? {} : { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
    const data = await answer.json().catch(() => ({ error: "the program does not answer as expected" }));
    if (!answer.ok) throw new Error(data.error || answer.statusText);
    return data;
  };
  const say = (text) => { $("message").textContent = text || ""; $("message").classList.toggle("hidden", !text); };
  const guarded = (work) => async (...values) => {
    try { await work(...values); say(""); }
    catch (error) { say(error instanceof TypeError ? "The program does not answer: is it still running? What was shown as saved is saved." : error.message); }
  };
  const number = (value) => value.toLocaleString();

  // ---- filters and selection
  const fields = ["queue", "camera", "label", "decided", "confidence_to", "size_from", "sharpness_from", "source", "time_from", "time_to", "sort"];
  const query = () => {
    const values = new URLSearchParams();
    for (const name of fields) {
      let value = $("f-" + name).value;
      if (value && name.startsWith("time_")) value = String(Date.parse(value + "Z") / 1000);
      if (value) values.set(name, value);
    }
    return values;
  };
  const select = guarded(async (keep) => {
    const started = performance.now();
    selection = await ask("api/select?" + query());
    rows.clear(); loading.clear(); picked.clear(); anchor = null;
    if (!keep) { focus = 0; $("scroller").scrollTop = 0; }
    focus = Math.max(0, Math.min(focus, selection.total - 1));
    const why = $("f-queue").selectedOptions[0];
    $("count").textContent = `${number(selection.total)} ${selection.total === 1 ? "face" : "faces"}` + (about.audit || !why ? "" : ` · ${why.textContent.toLowerCase()}`);
    layout();
    await draw();
    document.documentElement.dataset.selectMs = String(Math.round(performance.now() - started));
  });

  // ---- the grid: only what is seen exists
  const layout = () => {
    columns = Math.max(1, Math.floor($("scroller").clientWidth / CELL.w));
    $("canvas").style.height = Math.ceil(selection.total / columns) * CELL.h + "px";
  };
  const load = (page) => {
    if (!loading.has(page)) loading.set(page, fetchPage(page));
    return loading.get(page);
  };
  const fetchPage = async (page) => {
    const id = selection.id;
    let found;
    try { found = await ask(`api/window?id=${id}&from=${page * PAGE}&count=${PAGE}`); }
    catch (error) { loading.delete(page); throw error; }
    if (id !== selection.id) return;
    found.forEach((row, at) => rows.set(page * PAGE + at, row));
  };
  const range = () => {
    const top = $("scroller").scrollTop, height = $("scroller").clientHeight;
    return [Math.max(0, Math.floor(top / CELL.h) - 1) * columns, Math.min(selection.total, (Math.ceil((top + height) / CELL.h) + 1) * columns)];
  };
  const draw = async () => {
    if (!selection) return;
    const [first, last] = range();
    const pages = new Set();
    for (let at = first; at < last; at += 1) if (!rows.has(at)) pages.add(Math.floor(at / PAGE));
    paint(first, last);
    // Somebody may have scrolled on in the meantime: what is painted is what is seen now.
    if (pages.size) { await Promise.all([...pages].map(load)); paint(...range()); }
  };
  const paint = (first, last) => {
    const kept = new Map([...$("canvas").children].map((cell) => [Number(cell.dataset.at), cell]));
    for (const [at, cell] of kept) if (at < first || at >= last || cell.dataset.selection !== selection.id) { cell.remove(); kept.delete(at); }
    for (let at = first; at < last; at += 1) {
      const row = rows.get(at);
      if (!row) continue;
      let cell = kept.get(at);
      if (!cell) {
        cell = document.createElement("div");
        cell.className = "cell"; cell.dataset.at = at; cell.dataset.selection = selection.id; cell.dataset.row = row.row; cell.setAttribute("role", "gridcell");
        cell.style.left = (at % columns) * CELL.w + "px"; cell.style.top = Math.floor(at / columns) * CELL.h + "px"; cell.style.width = CELL.w + "px";
        const picture = document.createElement("img");
        picture.loading = "lazy"; picture.alt = ""; picture.src = `crop/${row.row}.jpg`;
        picture.addEventListener("error", () => {
          const gone = document.createElement("div");
          gone.className = "gone"; gone.textContent = "the image is gone or cannot be read";
          picture.replaceWith(gone);
        }, { once: true });
        const what = document.createElement("div");
        what.className = "what";
        cell.append(picture, what);
        $("canvas").append(cell);
      }
      cell.style.left = (at % columns) * CELL.w + "px"; cell.style.top = Math.floor(at / columns) * CELL.h + "px";
      dress(cell, row, at);
    }
  };
  const dress = (cell, row, at) => {
    cell.classList.toggle("is-focus", at === focus);
    cell.classList.toggle("is-selected", picked.has(at));
    cell.classList.toggle("is-decided", row.decided !== null);
    cell.setAttribute("aria-selected", String(at === focus));
    const what = cell.lastChild;
    what.replaceChildren();
    const shown = row.decided === null ? row.label : row.decided;
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    const word = document.createElement("span");
    if (shown === null) { word.textContent = "?"; swatch.style.background = "transparent"; }
    else if (shown === -1) { word.textContent = "no face"; swatch.style.background = "transparent"; }
    else { word.textContent = about.labels[shown].word; swatch.style.background = about.labels[shown].colour; }
    if (row.decided !== null) { word.className = "mark"; word.textContent = "✓ " + word.textContent; }
    const right = document.createElement("span");
    right.className = "right";
    right.textContent = row.confidence === null ? "" : row.confidence.toFixed(2);
    what.append(swatch, word, right);
    cell.title = [about.cameras[row.camera], row.captured, row.time_s === null ? null : row.time_s + " s"].filter(Boolean).join(" · ");
  };
  const repaint = () => { for (const cell of $("canvas").children) { const row = rows.get(Number(cell.dataset.at)); if (row) dress(cell, row, Number(cell.dataset.at)); } };
  const move = async (to, extend) => {
    if (!selection.total) return;
    to = Math.max(0, Math.min(selection.total - 1, to));
    if (extend) {
      if (anchor === null) anchor = focus;
      picked = new Set();
      for (let at = Math.min(anchor, to); at <= Math.max(anchor, to); at += 1) picked.add(at);
    } else { anchor = null; picked.clear(); }
    focus = to;
    const y = Math.floor(focus / columns) * CELL.h, view = $("scroller");
    if (y < view.scrollTop) view.scrollTop = y;
    if (y + CELL.h > view.scrollTop + view.clientHeight) view.scrollTop = y + CELL.h - view.clientHeight;
    await draw();
    repaint();
    if (openRow !== null) await open();
  };

  // ---- decisions
  const shownProgress = (progress) => {
    about.progress = progress;
    const extra = progress.changed === undefined ? "" : `, ${number(progress.changed)} changed, ${number(progress.not_a_face)} no face`;
    $("done").textContent = `${number(progress.decided)} of ${number(progress.faces)} decided${extra}`;
    $("progress").value = progress.faces ? progress.decided / progress.faces : 0;
    if (about.audit && progress.decided === progress.faces) showEstimates();
  };
  let queue = Promise.resolve();
  const decide = (action, label) => {
    const places = picked.size ? [...picked] : [focus];
    const single = !picked.size;
    // Keys may come faster than answers; decisions take turns, in the order of the keys.
    queue = queue.then(guarded(async () => {
      for (const at of places) if (!rows.has(at)) await load(Math.floor(at / PAGE));
      const chosen = places.map((at) => rows.get(at)).filter(Boolean).map((row) => row.row);
      if (!chosen.length) return;
      const spread = $("whole-track").checked ? "track" : $("f-queue").value === "posters" && !about.audit ? "poster" : "face";
      $("saved").textContent = "saving …";
      try {
        const answer = await ask("api/decide", { rows: chosen, action, label, spread });
        apply(answer.rows);
        $("saved").textContent = answer.count === 1 ? "saved" : `saved ${number(answer.count)}`;
        shownProgress(answer.progress);
      } catch (error) { $("saved").textContent = "NOT SAVED"; throw error; }
    }));
    if (single) move(focus + 1); else { anchor = null; picked.clear(); repaint(); }
    return queue;
  };
  const apply = (changed) => {
    const byRow = new Map(changed.map((row) => [row.row, row]));
    for (const [at, row] of rows) if (byRow.has(row.row)) rows.set(at, byRow.get(row.row));
    repaint();
  };
  const undo = () => { queue = queue.then(guarded(async () => {
    const answer = await ask("api/undo", {});
    $("saved").textContent = answer.count ? `took back ${answer.count}` : "nothing to take back";
    shownProgress(answer.progress);
    rows.clear(); loading.clear(); await draw(); repaint();
  })); return queue; };

  // ---- one face in its frame
  const SVG = "http://www.w3.org/2000/svg";
  const close = () => { openRow = null; auditFrame = null; drawing = null; $("detail").classList.add("hidden"); $("detail").replaceChildren(); layout(); draw(); };
  const open = guarded(async () => {
    if (!rows.has(focus)) await load(Math.floor(focus / PAGE));
    const row = rows.get(focus);
    if (row) await openFace(row.row);
  });
  const openFace = async (row) => {
    openRow = row; auditFrame = null;
    const wasHidden = $("detail").classList.contains("hidden");
    let face;
    try { face = await ask(`api/face/${row}`); }
    catch (error) { $("detail").classList.remove("hidden"); $("detail").textContent = error.message; layout(); return; }
    if (openRow !== row) return;
    const picture = document.createElement("div");
    picture.className = "picture";
    const image = document.createElement("img");
    image.src = `frame/${row}.jpg`; image.alt = "The frame of this face";
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${face.width} ${face.height}`); svg.setAttribute("preserveAspectRatio", "none");
    for (const other of face.boxes) {
      const shown = other.decided === null ? other.label : other.decided;
      svg.append(rectangle(other.box, shown === null || shown === -1 ? "#999" : about.labels[shown].colour, other.row === row ? "own" : ""));
    }
    for (const drawn of face.drawn) svg.append(rectangle(drawn.box, about.labels[drawn.label].colour, "drawn"));
    drawable(svg, face);
    picture.append(image, svg);
    const list = document.createElement("dl");
    const facts = [["File", face.source], ["Camera", about.cameras[face.camera]], ["Time", [face.captured, face.time_s === null ? null : `${face.time_s} s`].filter(Boolean).join(" · ") || "unknown"],
      ["Model", face.label === null ? "hidden until you answer" : `${about.labels[face.label].name} ${face.confidence}`], ["Detector", String(face.score)], ["Size", `${face.size} px`], ["Sharpness", String(face.sharpness)]];
    if (face.track !== null) facts.push(["Track", String(face.track)]);
    for (const [name, value] of facts) { const t = document.createElement("dt"), d = document.createElement("dd"); t.textContent = name; d.textContent = value; list.append(t, d); }
    const buttons = document.createElement("div");
    buttons.className = "buttons";
    if (!about.audit) buttons.append(button("Draw a missed face (d)", () => startDrawing()));
    buttons.append(button("Close (Esc)", close));
    $("detail").replaceChildren(picture, buttons, ...strip("The whole track", face.members, row), ...strip("Before and after", face.neighbours, row), list);
    $("detail").classList.remove("hidden");
    if (wasHidden) { layout(); await draw(); }
  };
  const button = (text, act) => { const made = document.createElement("button"); made.type = "button"; made.textContent = text; made.addEventListener("click", act); return made; };
  const rectangle = (box, colour, kind) => {
    const made = document.createElementNS(SVG, "rect");
    made.setAttribute("x", box[0]); made.setAttribute("y", box[1]); made.setAttribute("width", Math.max(1, box[2] - box[0])); made.setAttribute("height", Math.max(1, box[3] - box[1]));
    made.setAttribute("stroke", colour); if (kind) made.setAttribute("class", kind);
    return made;
  };
  const strip = (title, members, row) => {
    if (!members.length) return [];
    const head = document.createElement("h3"), line = document.createElement("div");
    head.textContent = title; line.className = "strip";
    for (const member of members) {
      const made = document.createElement("button"), image = document.createElement("img");
      made.type = "button"; if (member.row === row) made.className = "now";
      image.loading = "lazy"; image.src = `crop/${member.row}.jpg`;
      image.alt = member.label === null ? "a face" : about.labels[member.label].word;
      made.title = [member.label === null ? "" : about.labels[member.label].name, member.time_s === null ? "" : member.time_s + " s"].join(" ");
      made.append(image); made.addEventListener("click", () => guarded(openFace)(member.row)); line.append(made);
    }
    return [head, line];
  };
  const startDrawing = () => { drawing = { start: null }; $("detail").classList.add("is-drawing"); say("Draw a box around the face with the mouse, then press the key of its label."); };
  const drawable = (svg, face) => {
    const place = (event) => { const area = svg.getBoundingClientRect(); return [(event.clientX - area.left) / area.width * face.width, (event.clientY - area.top) / area.height * face.height]; };
    svg.addEventListener("pointerdown", (event) => { if (!drawing) return; drawing = { start: place(event), row: face.row, shape: null }; event.preventDefault(); });
    svg.addEventListener("pointermove", (event) => {
      if (!drawing || !drawing.start || drawing.fixed) return;
      const [x, y] = place(event), [x0, y0] = drawing.start;
      drawing.box = [Math.min(x, x0), Math.min(y, y0), Math.max(x, x0), Math.max(y, y0)];
      if (drawing.shape) drawing.shape.remove();
      drawing.shape = rectangle(drawing.box, "#fff", "drawn"); svg.append(drawing.shape);
    });
    svg.addEventListener("pointerup", () => { if (drawing && drawing.box) drawing.fixed = true; });
  };
  const finishDrawing = guarded(async (label) => {
    const { row, box } = drawing;
    drawing = null; $("detail").classList.remove("is-drawing");
    if (auditFrame !== null) { await ask("api/draw-in-frame", { frame: auditFrame, box, label }); $("saved").textContent = "saved"; await openAuditFrame(auditFrame); return; }
    const answer = await ask("api/draw", { row, box, label });
    $("saved").textContent = "saved"; shownProgress(answer.progress);
    await openFace(row);
  });

  // ---- audit
  const percent = (value) => (100 * value).toFixed(1) + " %";
  const showEstimates = guarded(async () => {
    const found = await ask("api/estimates");
    const place = $("result");
    place.replaceChildren();
    const head = document.createElement("h2");
    const whole = found.estimate;
    head.textContent = whole ? `${about.labels.find((label) => label.name === found.headline).word}: ${percent(whole.value)} (95 % interval ${percent(whole.low)} to ${percent(whole.high)})` : "No estimate yet";
    const text = document.createElement("p");
    text.textContent = `From ${number(found.answers)} of ${number(found.asked)} answers on ${number(found.population)} ${found.units}; the model alone says ${percent(found.by_model)}. ` +
      (whole ? (whole.more_for_2_points ? `Review ${number(whole.more_for_2_points)} more for ± 2 points.` : "The interval is within ± 2 points.") : "");
    const table = document.createElement("table");
    table.append(line("th", ["Camera", "Answers", "Share", "95 % interval"]));
    for (const item of found.cameras) table.append(line("td", [item.camera, number(item.answers), item.estimate ? percent(item.estimate.value) : "too few answers", item.estimate ? `${percent(item.estimate.low)} – ${percent(item.estimate.high)}` : ""]));
    const matrix = document.createElement("table");
    matrix.append(line("th", ["answer \\ model", ...about.labels.map((label) => label.word)]));
    found.confusion.forEach((values, at) => matrix.append(line("td", [at < about.labels.length ? about.labels[at].word : "no face", ...values.map((value) => number(Math.round(value)))])));
    const sub = document.createElement("h3");
    sub.textContent = `Estimated ${found.units} by answer and model`;
    const recall = document.createElement("p");
    const share = found.recall && found.recall.estimate;
    if (found.recall) recall.textContent = share
      ? `Faces that the detector found: ${percent(share.value)} (95 % interval ${percent(share.low)} to ${percent(share.high)}), from ${number(found.recall.checked)} of ${number(found.recall.asked)} frames: ${number(found.recall.missed)} missed.`
      : `How many faces were missed is told by ${number(found.recall.asked)} random frames (f).`;
    place.append(head, text, recall, table, sub, matrix);
    place.classList.remove("hidden");
    layout(); await draw();
  });
  // ---- audit: frames, for the faces that the detector missed
  let auditFrame = null;
  const openAuditFrame = guarded(async (number) => {
    if (!about.audit || !about.audit.frames) return;
    auditFrame = Math.max(0, Math.min(about.audit.frames - 1, number));
    drawing = null; openRow = -1;
    $("detail").classList.remove("hidden"); $("detail").classList.remove("is-drawing");
    const buttons = document.createElement("div"); buttons.className = "buttons";
    buttons.append(button("Draw a missed face (d)", () => startDrawing()), button("All faces have a box (c)", () => checkFrame()), button("Next (→)", () => openAuditFrame(auditFrame + 1)), button("Close (Esc)", close));
    let found;
    try { found = await ask(`api/audit-frame/${auditFrame}`); }
    catch (error) { const text = document.createElement("p"); text.textContent = `Frame ${auditFrame + 1} of ${about.audit.frames}: ${error.message}. It is left out.`; $("detail").replaceChildren(text, buttons); layout(); return; }
    showAuditFrame(found, buttons);
  });
  const showAuditFrame = (found, buttons) => {
    const head = document.createElement("h3");
    head.textContent = `Frame ${found.number + 1} of ${found.frames}${found.checked ? " ✓ complete" : ""}: is there a face without a box?`;
    const picture = document.createElement("div"); picture.className = "picture";
    const image = document.createElement("img"); image.src = `audit-frame/${found.number}.jpg`; image.alt = "A frame of the sample";
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${found.width} ${found.height}`); svg.setAttribute("preserveAspectRatio", "none");
    for (const box of found.boxes) svg.append(rectangle(box, "#999", "own"));
    for (const box of found.drawn) svg.append(rectangle(box, "#e69f00", "drawn"));
    drawable(svg, { row: -1, width: found.width, height: found.height });
    picture.append(image, svg);
    const text = document.createElement("p"); text.className = "soft";
    text.textContent = [found.source, found.time_s === null ? null : `${found.time_s.toFixed(2)} s`].filter(Boolean).join(" · ");
    $("detail").replaceChildren(head, picture, buttons, text);
    layout(); draw();
  };
  const checkFrame = guarded(async () => {
    await ask("api/check", { frame: auditFrame });
    $("saved").textContent = "saved";
    if (auditFrame + 1 < about.audit.frames) await openAuditFrame(auditFrame + 1); else { close(); await showEstimates(); }
  });
  const line = (tag, values) => { const made = document.createElement("tr"); for (const value of values) { const cell = document.createElement(tag); cell.textContent = value; made.append(cell); } return made; };

  // ---- keys
  const keys = () => {
    const list = about.labels.map((label, at) => [String(at + 1), label.name]);
    list.push(["x", "no face"], ["u", "take back the last decision"], ["← → ↑ ↓", "move"], ["Shift + arrows", "select a range; also Shift + click"], ["Home, End, Page ↑ ↓", "jump"], ["Enter", "open the frame"], ["Esc", "close, or deselect"]);
    if (about.tracked && !about.audit) list.push(["t", "one decision for the whole track, on or off"]);
    if (!about.audit) list.push(["d", "draw a missed face"], ["n", "next face without a decision"]);
    if (about.audit) list.push(["e", "estimate from the answers so far"], ["f", "look at frames for missed faces"], ["d", "there: draw a missed face, then the key of its label"], ["c", "there: all faces have a box"]);
    list.push(["?", "this help"]);
    for (const [key, text] of list) { const row = line("td", ["", text]); const made = document.createElement("kbd"); made.textContent = key; row.firstChild.append(made); $("keys").append(row); }
  };
  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "checkbox";
    if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
    if (event.key === "Escape") { if (drawing) { drawing = null; $("detail").classList.remove("is-drawing"); say(""); if (openRow !== null) guarded(openFace)(openRow); } else if (openRow !== null) close(); else { picked.clear(); anchor = null; repaint(); } $("scroller").focus(); return; }
    if (typing) { if (event.key === "Enter") $("scroller").focus(); return; }
    const page = Math.max(1, Math.floor($("scroller").clientHeight / CELL.h)) * columns;
    if (auditFrame !== null && (event.key === "ArrowLeft" || event.key === "ArrowRight")) { openAuditFrame(auditFrame + (event.key === "ArrowLeft" ? -1 : 1)); event.preventDefault(); return; }
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, PageUp: -page, PageDown: page };
    if (event.key in steps) { move(focus + steps[event.key], event.shiftKey); event.preventDefault(); return; }
    if (event.key === "Home" || event.key === "End") { move(event.key === "Home" ? 0 : selection.total - 1, event.shiftKey); event.preventDefault(); return; }
    const label = Number(event.key) - 1;
    if (Number.isInteger(label) && label >= 0 && label < about.labels.length) {
      if (drawing && drawing.fixed) finishDrawing(label); else if (!drawing && auditFrame === null && selection.total) decide("label", label);
      event.preventDefault(); return;
    }
    const acts = {
      x: () => selection.total && decide("not_a_face"), u: undo, Enter: open, "?": () => $("help").showModal(),
      t: () => { if (about.tracked && !about.audit) $("whole-track").checked = !$("whole-track").checked; },
      f: () => about.audit && openAuditFrame(0), c: () => auditFrame !== null && checkFrame(),
      d: () => { if (auditFrame !== null) { startDrawing(); return; } if (about.audit) return; if (openRow === null) open().then(startDrawing); else startDrawing(); },
      e: () => about.audit && showEstimates(),
      n: () => { let at = focus + 1; while (at < selection.total && rows.has(at) && rows.get(at).decided !== null) at += 1; move(at); },
    };
    if (event.key in acts) { acts[event.key](); event.preventDefault(); }
  });
  $("canvas").addEventListener("click", (event) => { const cell = event.target.closest(".cell"); if (cell) { move(Number(cell.dataset.at), event.shiftKey); $("scroller").focus(); } });
  $("canvas").addEventListener("dblclick", () => open());
  let scheduled = false;
  $("scroller").addEventListener("scroll", () => { if (scheduled) return; scheduled = true; requestAnimationFrame(() => { scheduled = false; guarded(draw)(); }); });
  addEventListener("resize", () => { if (selection) { layout(); draw(); } });
  $("help-button").addEventListener("click", () => $("help").showModal());
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  let typed = 0;
  $("filters").addEventListener("input", (event) => { if (event.target.id === "whole-track") return; clearTimeout(typed); typed = setTimeout(() => select(false), event.target.tagName === "SELECT" ? 0 : 250); });
  $("reset-filters").addEventListener("click", () => { $("filters").reset(); select(false); });

  guarded(async () => {
    about = await ask("api/about");
    document.title = `${about.title} · ${about.audit ? "audit" : "review"}`;
    $("title").textContent = `${about.audit ? "Audit" : "Review"} of ${about.title}`;
    const fill = (id, pairs) => { for (const [value, text] of pairs) { const option = document.createElement("option"); option.value = value; option.textContent = text; $(id).append(option); } };
    fill("f-queue", about.queues);
    fill("f-camera", about.cameras.map((name, at) => [at, name]));
    fill("f-label", [...about.labels.map((label, at) => [at, label.name]), [-1, "no face"]]);
    fill("f-sort", about.sorts.flatMap((name) => [[name, name], ["-" + name, name + ", largest first"]]));
    if (about.audit) for (const item of document.querySelectorAll(".only-review")) item.classList.add("hidden");
    if (about.audit || !about.tracked) for (const item of document.querySelectorAll(".only-tracks")) item.classList.add("hidden");
    keys();
    shownProgress(about.progress);
    await select(false);
    $("scroller").focus();
    document.documentElement.dataset.readyMs = String(Math.round(performance.now()));
  })();
})();
