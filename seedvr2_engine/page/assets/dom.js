// Elements made and found. Text only ever goes in as text: names of files are anybody's.

export const find = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element && !name.startsWith("aria")) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export const badge = (letter) => make("span", { className: `badge is-${letter.toLowerCase()}` }, letter);

// One of several, as radio buttons in a row: native keys, labels and states.
export function segment(id, title, choices, chosen, onChange) {
  const field = find(id);
  field.dataset.title = title;
  for (const [value, text] of choices) {
    const input = make("input", { type: "radio", name: id, value, checked: value === chosen });
    input.addEventListener("change", () => onChange(value));
    field.append(make("label", {}, input, text));
  }
  return (value) => {
    for (const input of field.querySelectorAll("input")) input.checked = input.value === value;
  };
}

export const cssColor = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
