// What the page was given: numbers as JSON, media as base64 in elements of their own.

export function readData() {
  const data = JSON.parse(document.getElementById("data").textContent);
  for (const curve of data.curves) {
    for (const series of curve.series) {
      series.values = series.values.map((value) => (value === "inf" ? Infinity : value));
    }
  }
  return data;
}

function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
  return bytes;
}

// An address of the media of a side. The text is let go of, or it would be in memory twice.
export function addressOf(side) {
  if (side.url !== null) return side.url;
  const pieces = [];
  for (const element of document.querySelectorAll(`script[data-media="${side.badge}"]`)) {
    pieces.push(bytesOf(element.textContent));
    element.remove();
  }
  return URL.createObjectURL(new Blob(pieces, { type: side.mime }));
}

export const thumbnailAddress = (index) =>
  `data:image/jpeg;base64,${document.getElementById(`worst-${index}`).textContent}`;
