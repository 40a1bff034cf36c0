"use strict";
// Shows what the server sends, and keeps the last readings for the small curves.
(function () {
  const kept = {}, most = 120;
  let claims = null;
  const by = (name) => document.getElementById(name);
  const state = by("state");

  function say(kind, text, why) {
    state.className = "state " + kind;
    state.textContent = text;
    by("why").textContent = why;
  }

  function draw(name, value) {
    const values = kept[name] = (kept[name] || []).concat(value).slice(-most);
    by(name).textContent = value === 0 ? "< " + Number(by(name).dataset.step).toLocaleString("en", { notation: "compact" }) : value.toLocaleString("en", value < 1e7 ? {} : { notation: "compact", maximumSignificantDigits: 4 });
    const low = Math.min(...values), high = Math.max(...values, low + 1);
    by(name + "-line").setAttribute("d", values.map((one, at) =>
      (at ? "L" : "M") + (100 * at / Math.max(1, values.length - 1)).toFixed(2) + " " + (96 - 92 * (one - low) / (high - low)).toFixed(2)).join(""));
  }

  function short(value) {
    return value.toLocaleString("en", value < 1e6 ? { maximumFractionDigits: 0 } : { notation: "compact", maximumSignificantDigits: 4 });
  }

  // Without a budget the tap lets everything out, and the page says so instead of a number.
  function showLeft(left, budget) {
    const known = left !== null && budget !== null && budget > 0;
    by("left").textContent = known ? "≥ " + short(left) + " bits" : "not limited";
    by("budget").textContent = known ? "of the " + short(budget) + " covert bits that a day (UTC) may carry; requests are refused when they are spent" : "the tap has no covert budget; ullage tap --covert-day-bits gives it one";
    by("left-share").setAttribute("width", known ? (100 * left / budget).toFixed(2) : "0");
  }

  async function fetchLedger() {
    const text = await (await fetch("ledger")).text();
    by("ledger").replaceChildren(...new DOMParser().parseFromString(text, "text/html").body.childNodes);
  }

  const source = new EventSource("events");
  source.onerror = () => say("silent", "this page's server does not answer", "");
  source.onmessage = (event) => {
    const seen = JSON.parse(event.data);
    by("at").textContent = seen.at;
    if (seen.ready === null) say("silent", "the tap does not answer", seen.reason);
    else if (seen.ready) say("ready", "the tap is open", "");
    else say("closed", "the tap is closed", seen.reason);
    if (seen.ready !== null) showLeft(seen.left, seen.budget);
    for (const [name, value] of Object.entries(seen.figures)) if (value !== null) draw(name, value);
    by("alarms").textContent = seen.alarms.length ? "Alarms since the start: " + seen.alarms.join(", ") + "." : "No alarm has gone off.";
    by("alarms").className = seen.alarms.length ? "warn" : "missing";
    if (claims !== null && claims !== seen.claims) fetchLedger();
    claims = seen.claims;
  };
})();
