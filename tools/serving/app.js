"use strict";
const at = (id) => document.getElementById(id);
let busy = 0;

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function number(value, digits) { return value === null ? "–" : value.toFixed(digits); }

function picture(one, kind) {
  return element("img", { src: kind === "image" ? `/image/${one.row}.jpg` : `/spectrum/${one.row}.svg`, loading: "lazy",
    alt: `${kind} of object ${one.object_id}` });
}

// What there is to see of a galaxy; a browser asks for what scrolls into view.
function seen(one, pictures) {
  const kinds = pictures.filter((kind) => one[`has_${kind}`]);
  return element("div", { className: kinds.length > 1 ? "pair" : "" }, ...kinds.map((kind) => picture(one, kind)));
}

function card(one, pictures, asked) {
  const score = one.score === undefined ? "" : ` · ${number(one.score, 4)}`;
  const partner = asked !== undefined && one.object_id === asked;
  const made = element("figure", { tabIndex: 0, className: partner ? "partner" : "", title: `RA ${one.ra}, Dec ${one.dec}` }, seen(one, pictures),
    element("figcaption", {}, `z ${number(one.z_spec, 3)}${score}`, element("br", {}), one.object_id));
  made.addEventListener("click", () => go(one.object_id, at("mode").value));
  made.addEventListener("keydown", (event) => { if (event.key === "Enter") made.click(); });
  return made;
}

async function ask(path) {
  const reply = await fetch(path);
  const found = await reply.json();
  if (!reply.ok) throw new Error(found.error);
  return found;
}

async function show(path) {
  const turn = ++busy;
  at("message").textContent = "…";
  try {
    const found = await ask(path);
    if (turn !== busy) return;
    at("message").textContent = "";
    at("query").replaceChildren();
    if (found.query) {
      at("object").value = found.query.object_id;
      at("query").append(seen(found.query, found.pictures), element("p", {}, `object ${found.query.object_id}, RA ` +
        `${number(found.query.ra, 5)}°, Dec ${number(found.query.dec, 5)}°, z ${number(found.query.z_spec, 4)} · ${found.seconds.toFixed(2)} s`));
    }
    at("found").className = found.pictures.length > 1 ? "both" : found.pictures.join();
    at("found").replaceChildren(...found.galaxies.map((one) => card(one, found.pictures, found.across ? found.query.object_id : undefined)));
  } catch (error) {
    if (turn === busy) at("message").textContent = error.message;
  }
}

function go(object, mode) { location.hash = `${object}/${mode}`; }

function follow() {
  const [object, mode] = location.hash.slice(1).split("/");
  if (mode) at("mode").value = mode;
  show(object ? `/api/search?id=${encodeURIComponent(object)}&mode=${encodeURIComponent(mode || "ii")}` : "/api/random");
}

at("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const place = at("position").value.trim();
  if (!place) return go(at("object").value.trim(), at("mode").value);
  try {
    const [ra, dec] = place.split(/[\s,]+/);
    const near = await ask(`/api/near?ra=${encodeURIComponent(ra)}&dec=${encodeURIComponent(dec || "")}`);
    at("position").value = "";
    go(near.object_id, at("mode").value);
  } catch (error) {
    at("message").textContent = error.message;
  }
});
at("mode").addEventListener("change", () => { if (at("object").value) go(at("object").value, at("mode").value); });
at("random").addEventListener("click", () => { if (location.hash) location.hash = ""; else follow(); });
addEventListener("hashchange", follow);
ask("/api/about").then((about) => { at("about").textContent = about.text; });
follow();
