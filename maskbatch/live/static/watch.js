"use strict";
(() => {
  const at = (id) => document.getElementById(id);
  const make = (tag, className, text) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString();
  const span = (seconds) =>
    seconds < 90 ? `${Math.round(seconds)} s` : seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
  const sum = (counts) => Object.values(counts).reduce((a, b) => a + b, 0);
  const cards = new Map();

  const swatch = (look) => {
    const node = make("span", "swatch");
    node.style.background = look.colour;
    node.setAttribute("aria-hidden", "true");
    return node;
  };

  const counts = (node, looks, values) => {
    node.replaceChildren(
      ...looks.map((look) => {
        const item = make("span");
        item.append(swatch(look), ` ${look.word} `, make("strong", "", String(values[look.label] || 0)));
        return item;
      }),
    );
  };

  const bar = (node, looks, values) => {
    const total = sum(values);
    node.replaceChildren(
      ...looks.map((look) => {
        const part = make("span");
        part.style.width = total ? `${(100 * (values[look.label] || 0)) / total}%` : "0";
        part.style.background = look.colour;
        return part;
      }),
    );
  };

  const card = (camera) => {
    const section = make("section", "camera");
    const view = make("div", "view");
    const image = make("img");
    image.alt = `last frame of ${camera.name}`;
    image.hidden = true;
    const none = make("p", "soft", "no frame yet");
    view.append(image, none);
    const facts = make("div", "facts");
    const head = make("div", "head");
    const badge = make("span", "badge");
    head.append(make("h3", "", camera.name), badge);
    const now = make("div", "now");
    const today = make("div", "bar");
    const detail = make("p", "soft");
    facts.append(head, now, today, detail);
    section.append(view, facts);
    at("cameras").append(section);
    return { section, image, none, badge, now, today, detail, shown: null };
  };

  const show = (camera, looks, time) => {
    const parts = cards.get(camera.name) || card(camera);
    cards.set(camera.name, parts);
    const live = camera.state === "live";
    parts.section.classList.toggle("lost", !live);
    parts.badge.classList.toggle("lost", !live);
    parts.badge.textContent = live ? "live" : `${camera.state} ${span(Math.max(0, time - camera.since))}`;
    if (camera.shown_at !== null && camera.shown_at !== parts.shown) {
      parts.shown = camera.shown_at;
      parts.image.src = `/frame/${encodeURIComponent(camera.name)}?t=${camera.shown_at}`;
      parts.image.hidden = false;
      parts.none.hidden = true;
    }
    counts(parts.now, looks, camera.people);
    bar(parts.today, looks, camera.today);
    const now = sum(camera.people);
    const bits = [`${now} ${now === 1 ? "person" : "people"} now`, `${sum(camera.today)} faces today`, `${camera.samples} frames looked at`];
    if (camera.dropped) bits.push(`${camera.dropped} dropped`);
    if (live) bits.push(`${camera.latency_s.toFixed(2)} s from frame to row`);
    if (camera.reason) bits.push(camera.reason);
    if (camera.shown_at !== null) bits.push(`last frame ${clock(camera.shown_at)}`);
    parts.detail.textContent = bits.join(" · ");
  };

  const words = (event, looks) => {
    const look = looks.find((one) => one.label === event.label);
    switch (event.event) {
      case "no_mask":
        return `${event.camera}: person ${event.track}, ${look ? look.word : event.label}, ${Math.round(event.share * 100)} % of ${event.sightings} sightings`;
      case "camera_lost":
        return `${event.camera} lost: ${event.reason}`;
      case "camera_back":
        return `${event.camera} is back after ${span(event.lost_s)}`;
      default:
        return `share ${event.event === "share_under" ? "under" : "back over"} ${Math.round(event.limit * 100)} %: ${Math.round(event.share * 100)} % of ${event.people} people`;
    }
  };

  const render = (state) => {
    const today = {};
    for (const camera of state.cameras) {
      show(camera, state.looks, state.at);
      for (const [label, count] of Object.entries(camera.today)) today[label] = (today[label] || 0) + count;
    }
    const total = sum(today);
    const headline = state.looks.find((look) => look.label === state.headline);
    at("figure").textContent = total ? `${((100 * (today[state.headline] || 0)) / total).toFixed(0)} % ${headline.word}` : "–";
    at("sentence").textContent = `${total} faces seen today in the frames looked at; ${state.rows} rows committed`;
    counts(at("legend"), state.looks, today);
    const lost = state.cameras.filter((camera) => camera.state !== "live").length;
    at("status").textContent = lost ? `${lost} of ${state.cameras.length} cameras not seen` : `${state.cameras.length} cameras live`;
    at("trouble").textContent = state.commit_error;
    at("trouble").classList.toggle("hidden", !state.commit_error);
    at("quiet").hidden = state.events.length > 0;
    at("events").replaceChildren(
      ...state.events.map((event) => {
        const item = make("li");
        const time = make("time", "", new Date(event.at).toLocaleTimeString());
        time.dateTime = event.at;
        item.append(time, make("span", "", words(event, state.looks)));
        return item;
      }),
    );
    document.documentElement.dataset.ready = "yes";
  };

  const source = new EventSource("/state");
  source.onmessage = (message) => render(JSON.parse(message.data));
  source.onerror = () => {
    at("status").textContent = "the watch does not answer; trying again …";
  };
})();
