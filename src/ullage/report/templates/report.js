"use strict";
// Browsing of audited messages. Each pack is JSON, gzip, base64, inside the page; nothing is loaded.
(function () {
  const shade = (margin) => margin === null ? 5 : 1 + Math.min(4, Math.floor(4 * Math.sqrt(Math.min(1, margin / 4))));
  const setShade = (count) => count <= 1 ? 0 : count <= 2 ? 1 : count <= 4 ? 2 : count <= 16 ? 3 : count <= 128 ? 4 : 5;
  const quoted = (text) => JSON.stringify(text);

  async function unpack(text) {
    const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  }

  function view(root, pack) {
    const find = (name) => root.querySelector("." + name);
    const answer = find("answer"), detail = find("detail"), about = find("about"), order = find("order");
    const record = find("record"), colour = find("colour"), prompt = find("prompt");
    const byRecord = pack.messages.map((_, at) => at);
    const byInterest = [...byRecord].sort((a, b) => pack.messages[b][4].length - pack.messages[a][4].length || a - b);
    let shown = Math.max(0, pack.messages.findIndex((one) => one[0] === Number(record.value)));
    let focus = 0;

    const sequence = () => order.value === "record" ? byRecord : byInterest;

    function describe(position) {
      const [, , , tokens, mismatches, wide] = pack.messages[shown];
      const found = mismatches.find((one) => one[0] === position);
      const parts = ["Token " + position + ", " + quoted(pack.words[tokens[position]])];
      if (found) {
        const [, reference, margin, rank, bits] = found;
        parts.push("the reference says " + quoted(pack.words[reference]));
        parts.push(margin === null ? "no finite margin: outside the filters" : "lost by " + margin + " logits");
        if (rank >= 0) parts.push("rank " + rank);
        if (bits !== null) parts.push(bits + " bits");
      } else parts.push("the reference’s own");
      if (pack.admissible) {
        const set = wide.find((one) => one[0] === position);
        parts.push("admissible tokens here: " + (set ? set[1] : 1));
      }
      return parts.join("; ") + ".";
    }

    function select(position, moveFocus) {
      const cells = answer.children;
      if (!cells.length) return;
      cells[focus].tabIndex = -1;
      cells[focus].setAttribute("aria-selected", "false");
      focus = Math.min(Math.max(position, 0), cells.length - 1);
      cells[focus].tabIndex = 0;
      cells[focus].setAttribute("aria-selected", "true");
      detail.textContent = describe(focus);
      if (moveFocus) cells[focus].focus();
    }

    function show() {
      const [number, outcome, prompted, tokens, mismatches, wide] = pack.messages[shown];
      const differing = new Map(mismatches.map((one) => [one[0], one]));
      const sets = new Map(wide);
      record.value = String(number);
      about.textContent = "Record " + number + ": " + mismatches.length + " of " + tokens.length + " tokens differ" +
        (outcome && outcome !== "complete" ? " (" + outcome + ")" : "") + ".";
      prompt.hidden = !prompted;
      find("prompt-text").textContent = prompted;
      answer.replaceChildren(...tokens.map((word, position) => {
        const cell = document.createElement("span");
        const found = differing.get(position);
        const level = colour.value === "admissible" ? setShade(sets.get(position) ?? 1) : found ? shade(found[2]) : 0;
        const text = pack.words[word];
        cell.className = "cell s" + level + (found ? " differs" : "") + (found && text.includes("\n") ? " break" : "");
        cell.role = "option";
        cell.tabIndex = -1;
        cell.setAttribute("aria-selected", "false");
        cell.textContent = text;
        if (!text.trim()) cell.setAttribute("aria-label", text.includes("\n") ? "line break" : "space");
        return cell;
      }));
      focus = 0;
      const first = mismatches.length ? mismatches[0][0] : 0;
      select(first, false);
    }

    function step(by) {
      const all = sequence(), at = all.indexOf(shown);
      shown = all[Math.min(Math.max(at + by, 0), all.length - 1)];
      show();
    }

    answer.setAttribute("role", "listbox");
    answer.setAttribute("aria-label", "Tokens of the answer");
    answer.setAttribute("aria-orientation", "horizontal");
    find("previous").addEventListener("click", () => step(-1));
    find("next").addEventListener("click", () => step(1));
    order.addEventListener("change", () => { if (order.value === "interest") shown = byInterest[0]; show(); });
    colour.addEventListener("change", show);
    record.addEventListener("change", () => {
      const at = pack.messages.findIndex((one) => one[0] >= Number(record.value));
      shown = at < 0 ? pack.messages.length - 1 : at;
      show();
    });
    const position = (event) => Array.prototype.indexOf.call(answer.children, event.target);
    answer.addEventListener("pointerover", (event) => { const at = position(event); if (at >= 0) detail.textContent = describe(at); });
    answer.addEventListener("click", (event) => { const at = position(event); if (at >= 0) select(at, true); });
    answer.addEventListener("keydown", (event) => {
      const moves = { ArrowRight: focus + 1, ArrowDown: focus + 1, ArrowLeft: focus - 1, ArrowUp: focus - 1, Home: 0, End: answer.children.length - 1 };
      if (event.key in moves) { event.preventDefault(); select(moves[event.key], true); }
    });
    if (!pack.admissible) colour.parentElement.hidden = true;
    find("controls").hidden = false;
    show();
  }

  function start() {
    for (const root of document.querySelectorAll(".viewer")) {
      const source = document.getElementById(root.dataset.pack);
      unpack(source.textContent).then((pack) => { if (pack.messages.length) view(root, pack); });
    }
  }
  // Unpacking waits until the first screen is painted.
  requestAnimationFrame(() => setTimeout(start, 0));

  // On paper everything is open.
  addEventListener("beforeprint", () => { for (const one of document.querySelectorAll("details")) one.open = true; });
})();
