
"use strict";
// Images go to POST /predict, and answers into the page. All text goes through textContent, never as markup.

const element = (id) => document.getElementById(id);
const [drop, files, models, status, results] = ["drop", "files", "models", "status", "results"].map(element);
const largest = Number(element("form").dataset.bytes); // of a request, as the server takes it
const SOME = Math.min(8, element("form").dataset.images); // images of one, so that answers come while others are computed
const MIB = 2 ** 20;

function make(tag, text = "", parts = []) {
  const made = document.createElement(tag);
  made.textContent = text;
  made.append(...parts);
  return made;
}

function say(text, bad = false) {
  status.textContent = text;
  status.classList.toggle("bad", bad);
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("the server cannot be reached: it may have been stopped");
  }
  const content = await response.json();
  if (!response.ok) throw new Refused(`${content.what} (${content.where}): ${content.what_to_do}`);
  return content;
}

class Refused extends Error {} // by the server, which may well take the next request

async function showModels() {
  const found = (await ask("models")).models;
  const off = new Set([...models.querySelectorAll("input:not(:checked)")].map((box) => box.value));
  models.querySelectorAll("label").forEach((label) => label.remove());
  for (const model of found) {
    const box = make("input");
    Object.assign(box, { type: "checkbox", value: model.name, checked: !off.has(model.name) });
    const label = make("label", "", [box, ` ${model.name}`]);
    label.title = `${model.methods} on ${model.backbone}, ${model.classes.length} classes`;
    models.append(label);
  }
  if (!found.length) say("No model is loaded: POST /models loads one.", true);
}

function chosen() {
  const query = new URLSearchParams({ top: element("top").value || "3" });
  for (const box of models.querySelectorAll("input:checked")) query.append("model", box.value);
  return query;
}

async function classify(files) {
  const list = [...files]; // a list of its own: the browser empties the other
  const images = list.filter((file) => file.type.startsWith("image/") || !file.type);
  if (!images.length) return say("These are no images.", true);
  if (models.querySelector("input") && !models.querySelector("input:checked")) return say("Choose a model.", true);
  results.querySelectorAll("img").forEach((image) => URL.revokeObjectURL(image.src));
  results.replaceChildren();
  const query = chosen();
  const started = performance.now();
  let [at, failed] = [0, 0];
  try {
    for (const some of requests(images)) {
      say(`${at} of ${images.length} …`);
      at += some.length;
      try {
        await classifySome(some, query);
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        failed += some.length;
        results.append(...some.map((file) => make("article", "", [make("h2", nameOf(file)), reason(error.message)])));
      }
    }
    const others = list.length - images.length;
    const seconds = ((performance.now() - started) / 1000).toFixed(2);
    const notes = `${failed ? `; not classified: ${failed}` : ""}${others ? `; not images: ${others}` : ""}`;
    say(`${images.length} ${images.length > 1 ? "images" : "image"} in ${seconds} s${notes}`, failed > 0);
  } catch (error) {
    say(error.message, true);
  }
}

const nameOf = (file) => file.name || "pasted";

// Bytes that an image takes in a request, at most: its own, and those of its part's header, where a name may be escaped.
const inForm = (file) => file.size + 3 * new Blob([nameOf(file), file.type]).size + 512;

// Lists of images that the server takes in one request each; an image that is too large is alone in its.
function requests(images) {
  const all = [];
  let room = -1;
  for (const file of images) {
    room -= inForm(file);
    if (room < 0 || all.at(-1).length === SOME) {
      all.push([]);
      room = largest - inForm(file);
    }
    all.at(-1).push(file);
  }
  return all;
}

function reason(text) {
  const made = make("p", text);
  made.className = "broken";
  return made;
}

async function classifySome(some, query) {
  if (some.length === 1 && inForm(some[0]) > largest) {
    const [size, most] = [some[0].size, largest].map((bytes) => Number((bytes / MIB).toPrecision(3)));
    throw new Refused(`the file has ${size} MiB, and this server takes ${most} MiB at a time (--max-upload)`);
  }
  const form = new FormData();
  for (const file of some) form.append("images", file, nameOf(file));
  const { predictions, broken } = await ask(`predict?${query}`, { method: "POST", body: form });
  const cards = some.map((file) => make("article", "", [make("h2", nameOf(file))]));
  for (const { index, answers } of predictions) {
    const image = make("img");
    image.alt = "";
    image.src = URL.createObjectURL(some[index]);
    cards[index].prepend(image);
    for (const { model, top } of answers) {
      if (answers.length > 1) cards[index].append(make("h3", model));
      cards[index].append(make("ol", "", top.map(line)));
    }
  }
  for (const { index, why } of broken) cards[index].append(reason(why));
  results.append(...cards);
}

function line(one) {
  const bar = make("i");
  bar.style.width = `${100 * one.probability}%`;
  return make("li", "", [bar, make("span", one.class), make("span", `${(100 * one.probability).toFixed(1)} %`)]);
}

files.addEventListener("change", () => { classify(files.files); files.value = ""; });
drop.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") files.click(); });
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragenter" || kind === "dragover");
  });
}
document.addEventListener("drop", (event) => classify(event.dataTransfer.files));
document.addEventListener("paste", (event) => { if (event.clipboardData.files.length) classify(event.clipboardData.files); });
element("form").addEventListener("submit", (event) => event.preventDefault());
showModels().catch((error) => say(error.message, true));
