// Mouse, pen and fingers on the stage: one drags or wipes, two zoom, the wheel zooms where the stage has the focus.
import { clamp } from "./dom.js";

const NEAR_PX = 26;

export function listenToPointers(stage, actions) {
  const { element } = stage;
  const held = new Map();
  let drag = null;
  let pinch = null;

  const wipeAt = (clientX) => {
    const box = element.getBoundingClientRect();
    actions.wipe(clamp((clientX - box.left) / box.width, 0, 1));
  };
  const spread = () => {
    const [a, b] = [...held.values()];
    return { distance: Math.hypot(a.x - b.x, a.y - b.y), middle: [(a.x + b.x) / 2, (a.y + b.y) / 2] };
  };

  element.addEventListener("pointerdown", (event) => {
    if (event.button > 0) return;
    held.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (held.size === 2) {
      drag = null;
      pinch = { ...spread(), scale: stage.scale };
      return;
    }
    const box = element.getBoundingClientRect();
    const isNear = Math.abs(event.clientX - box.left - stage.wipe * box.width) < NEAR_PX;
    const wipes = stage.mode === "wipe" && (isNear || event.target.closest(".wipe") || (stage.zoom === null && !stage.loupe));
    drag = { kind: wipes ? "wipe" : stage.loupe ? "loupe" : "move", x: event.clientX, y: event.clientY };
    element.setPointerCapture(event.pointerId);
    element.classList.toggle("is-held", drag.kind === "move");
    if (drag.kind === "wipe" && event.pointerType === "mouse") wipeAt(event.clientX);
    if (drag.kind === "loupe") actions.loupe(stage.at(event.clientX, event.clientY));
  });

  element.addEventListener("pointermove", (event) => {
    if (held.has(event.pointerId)) held.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (pinch && held.size === 2) {
      const now = spread();
      actions.zoom((pinch.scale * now.distance) / pinch.distance, stage.at(...now.middle));
      stage.move(now.middle[0] - pinch.middle[0], now.middle[1] - pinch.middle[1]);
      pinch.middle = now.middle;
    } else if (drag?.kind === "wipe") {
      wipeAt(event.clientX);
    } else if (drag?.kind === "move" && stage.zoom !== null) {
      stage.move(event.clientX - drag.x, event.clientY - drag.y);
      [drag.x, drag.y] = [event.clientX, event.clientY];
    } else if (stage.loupe && (drag || event.pointerType === "mouse")) {
      actions.loupe(stage.at(event.clientX, event.clientY));
    }
  });

  const release = (event) => {
    held.delete(event.pointerId);
    if (held.size < 2) pinch = null;
    if (held.size === 0) drag = null;
    element.classList.remove("is-held");
  };
  element.addEventListener("pointerup", release);
  element.addEventListener("pointercancel", release);
  element.addEventListener("dblclick", (event) => {
    actions.zoom(stage.zoom === null ? Math.max(1, stage.scale * 4) : null, stage.at(event.clientX, event.clientY));
  });
  element.addEventListener(
    "wheel",
    (event) => {
      // Elsewhere the wheel scrolls the page, as it should; with Ctrl it is a touch pad's pinch.
      if (!event.ctrlKey && !element.contains(document.activeElement)) return;
      event.preventDefault();
      actions.zoom(stage.scale * Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.002)), stage.at(event.clientX, event.clientY));
    },
    { passive: false },
  );
}
