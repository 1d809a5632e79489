// The page comes to life: text at once, pictures as soon as they are decoded.
import { find } from "./dom.js";
import { addressOf, readData } from "./source.js";
import { trackOf } from "./tracks.js";
import { Player } from "./player.js";
import { Stage } from "./stage.js";
import { control } from "./controls.js";
import { showCharts } from "./charts.js";
import { showReport } from "./report.js";

async function open() {
  const data = readData();
  const tracks = data.sides.map((side) => trackOf(side, addressOf(side)));
  const player = new Player(data, tracks);
  const stage = new Stage(data, player);
  showReport(data, player);
  control(data, player, stage);
  showCharts(data, player);
  const failures = await Promise.all(
    tracks.map((track) => track.open().then(() => null, (error) => `${track.side.badge} cannot be shown here: ${error.message}.`)),
  );
  const failed = failures.filter(Boolean);
  if (failed.length) {
    find("wait").textContent = `${failed.join(" ")} The numbers below hold all the same.`;
    return;
  }
  await player.seek(0);
  stage.resize();
  find("wait").hidden = true;
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
  // For tests and for the curious.
  window.comparePage = { data, player, stage };
}

open();
