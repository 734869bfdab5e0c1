// Keeps a page as it is on the server: progress and log lines as they come, and whole sections when something changed.
// Without this script the pages reload themselves. Texts from events only ever become text nodes.
"use strict";

(() => {
  const main = document.querySelector("main[data-events]");
  if (!main || !window.EventSource || !window.DOMParser || !window.fetch) return;

  const LEAST_BETWEEN = 1500; // milliseconds between two looks at the whole page
  const FALLBACK = 15000; // where no stream can be had
  const REFRESH = 60000;
  const MOST_LINES = 1000;
  const announce = document.getElementById("announce");
  const log = document.getElementById("log");
  let said = main.dataset.words || "";
  let looked = 0;
  let planned = null;
  let busy = false;
  let again = false;
  let poll = null;

  const percent = (fraction) => (typeof fraction === "number" ? `${Math.round(Math.min(Math.max(fraction, 0), 1) * 100)} %` : "");

  const atEnd = (box) => box.scrollHeight - box.scrollTop - box.clientHeight < 40;

  function progress(box, data) {
    const bar = box.querySelector("progress");
    const stage = box.querySelector("[data-stage]");
    if (stage && data.where) stage.textContent = data.where;
    box.querySelector("[data-percent]").textContent = percent(data.fraction);
    if (typeof data.fraction === "number") bar.value = data.fraction;
    else bar.removeAttribute("value");
  }

  function line(data) {
    if (!log) return;
    const follow = atEnd(log);
    const nothing = log.querySelector(".nothing");
    if (nothing) nothing.remove();
    const row = document.createElement("div");
    row.className = "line";
    const at = document.createElement("span");
    at.className = "at";
    at.textContent = data.at;
    row.append(at, ` ${data.message}`);
    log.append(row);
    while (log.childElementCount > MOST_LINES) log.firstElementChild.remove();
    if (follow) log.scrollTop = log.scrollHeight;
  }

  function replace(section, fresh) {
    if (section.innerHTML === fresh.innerHTML && section.className === fresh.className) return;
    const active = document.activeElement;
    const held = active && section.contains(active) ? active : null;
    const key = held && (held.id ? `#${CSS.escape(held.id)}` : held.getAttribute("href") ? `a[href="${CSS.escape(held.getAttribute("href"))}"]` : "");
    const open = new Set([...section.querySelectorAll("details[open][id]")].map((one) => one.id));
    const scrolled = [...section.querySelectorAll(".scroll")].map((one) => (atEnd(one) ? Infinity : one.scrollTop));
    section.className = fresh.className;
    section.replaceChildren(...[...fresh.childNodes].map((node) => document.importNode(node, true)));
    for (const one of section.querySelectorAll("details[id]")) one.open = one.open || open.has(one.id);
    [...section.querySelectorAll(".scroll")].forEach((one, place) => { one.scrollTop = Math.min(scrolled[place] || 0, one.scrollHeight); });
    if (key) {
      const found = section.querySelector(key);
      if (found) found.focus({ preventScroll: true });
    } else if (held && held.matches(".scroll")) {
      const found = section.querySelector(".scroll");
      if (found) found.focus({ preventScroll: true });
    }
  }

  async function look() {
    planned = null;
    if (busy) { again = true; return; }
    busy = true;
    looked = Date.now();
    try {
      const reply = await fetch(location.href, { headers: { Accept: "text/html" }, credentials: "same-origin" });
      if (reply.ok) {
        const page = new DOMParser().parseFromString(await reply.text(), "text/html");
        document.title = page.title;
        for (const section of document.querySelectorAll("[data-live]")) {
          const fresh = page.getElementById(section.id);
          if (fresh) replace(section, fresh);
        }
        const now = page.querySelector("main");
        tell(now && now.dataset.words);
        if (main.dataset.words && now && !now.dataset.events) end();
      }
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // the network; the next look tells
    } finally {
      busy = false;
      if (again) { again = false; plan(); }
    }
  }

  function plan() {
    if (planned === null) planned = setTimeout(look, Math.max(0, looked + LEAST_BETWEEN - Date.now()));
  }

  function tell(words) {
    if (!words || words === said) return;
    said = words;
    announce.textContent = words;
  }

  // A browser keeps few connections to one server: a tab that nobody looks at gives its own back.
  const address = new URL(main.dataset.events, location.href);
  let stream = null;

  function close() {
    if (stream) stream.close();
    stream = null;
    if (poll !== null) { clearInterval(poll); poll = null; }
  }

  function end() {
    close();
    main.removeAttribute("data-events");
  }

  const moved = (data) => {
    const box = data.id ? main.querySelector(`.going[data-job="${CSS.escape(data.id)}"]`) : main.querySelector(".going");
    if (box) progress(box, data);
  };
  const acts = {
    progress: moved,
    stage: (data) => { moved(data); plan(); },
    log: line,
    job: (data) => {
      if (data.words !== said) plan();
      tell(data.words);
    },
    refresh: plan,
    end: () => { end(); plan(); },
  };

  function open() {
    if (stream || document.hidden || !main.dataset.events) return;
    const mine = new EventSource(address);
    stream = mine;
    for (const [kind, act] of Object.entries(acts)) {
      mine.addEventListener(kind, (event) => {
        if (event.lastEventId) address.searchParams.set("after", event.lastEventId);
        act(JSON.parse(event.data));
      });
    }
    mine.addEventListener("open", () => { if (poll !== null) { clearInterval(poll); poll = null; } });
    mine.addEventListener("error", () => {
      if (mine.readyState === EventSource.CLOSED && mine === stream && poll === null) poll = setInterval(plan, FALLBACK);
    });
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) close();
    else if (main.dataset.events) { open(); plan(); }
  });
  setInterval(() => { if (!document.hidden && main.dataset.events) plan(); }, REFRESH); // "4 min ago" grows old
  open();
  for (const box of document.querySelectorAll("#log, .scroll")) box.scrollTop = box.scrollHeight;
})();
