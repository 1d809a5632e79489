// What stands around the pictures: names, numbers, the worst frames, and where everything comes from.
import { badge, find, make } from "./dom.js";
import { thumbnailAddress } from "./source.js";

const baseName = (name) => name.split(/[\\/]/).filter(Boolean).at(-1) ?? name;

function showNames(data) {
  for (const side of data.sides) {
    const size = make("small", {}, `${side.size[0]} × ${side.size[1]}`);
    const role = side.badge === "R" ? [make("small", {}, "reference")] : [];
    find("names").append(make("span", { className: "name", title: side.name }, badge(side.badge), baseName(side.name), size, ...role));
  }
  for (const sentence of data.remarks) find("remarks").append(make("li", {}, sentence));
  find("remarks").hidden = data.remarks.length === 0;
}

function showSummary(data) {
  find("measures").hidden = !data.summary?.rows.length && !data.curves.length;
  if (!data.summary) return;
  find("against").textContent = data.against;
  const head = make("tr", {}, make("th", { scope: "col" }, make("small", {}, "Whole clip")));
  if (data.frames === 1) head.firstChild.firstChild.textContent = "Picture";
  for (const letter of data.summary.badges) head.append(make("th", { scope: "col" }, badge(letter)));
  const rows = data.summary.rows.map(([label, texts]) =>
    make("tr", {}, make("th", { scope: "row" }, label), ...texts.map((text) => make("td", {}, text || "–"))),
  );
  find("summary").append(make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
}

// Chunk borders, shots and units by name: each leads to its frame.
function showMarks(data, player) {
  if (!data.marks.length) return;
  const names = { border: "Border", shot: "Shot", unit: "Unit" };
  const list = make("div", { className: "borders" }, make("h3", {}, "Marks"));
  for (const mark of [...data.marks].sort((a, b) => a.frame - b.frame)) {
    const text = `${names[mark.kind]} at ${mark.frame + data.firstFrame}`;
    const button = make("button", { type: "button" }, make("span", {}, text), make("span", {}, mark.text));
    button.addEventListener("click", () => player.seek(mark.frame));
    list.append(button);
  }
  find("summary").append(list);
}

function showWorst(data, player) {
  find("worst").hidden = data.worst.length === 0;
  const buttons = data.worst.map(({ frame, text }, index) => {
    const number = frame + data.firstFrame;
    const image = make("img", { src: thumbnailAddress(index), alt: "A and B where they differ most" });
    const cut = make("div", { className: "cut" }, image);
    const button = make("button", { type: "button" }, cut, make("span", {}, `Frame ${number}`, make("em", {}, text)));
    button.addEventListener("click", () => {
      player.seek(frame);
      find("viewer").scrollIntoView({ block: "nearest" });
    });
    find("worst-list").append(make("li", {}, button));
    return { frame, button };
  });
  player.onChange(() => {
    for (const { frame, button } of buttons) button.setAttribute("aria-current", String(frame === player.frame));
  });
}

function card(title, rows) {
  const list = make("dl", {});
  for (const [name, value] of rows) list.append(make("dt", {}, name), make("dd", {}, value));
  return make("article", { className: "card" }, make("h3", {}, ...title), list);
}

export function showReport(data, player) {
  showNames(data);
  showSummary(data);
  showMarks(data, player);
  showWorst(data, player);
  for (const side of data.sides) {
    const shown = [["Shown", side.note || (side.kind === "image" ? "every pixel, as PNG" : "the file as it is")]];
    find("cards").append(card([badge(side.badge), baseName(side.name)], [...side.facts, ...shown]));
  }
  for (const table of data.tables) find("cards").append(card([table.title], table.rows));
}
