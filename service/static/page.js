"use strict";
// The page of the service: everything it does is a call of the documented HTTP interface.

const form = document.getElementById("form");
const status = document.getElementById("status");
const ENDED = ["succeeded", "failed", "cancelled"];

async function ask(path, options = {}) {
  const key = form.elements.key.value;
  const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  const answer = await fetch(path, { ...options, headers });
  if (answer.status === 401) document.getElementById("key-label").hidden = false;
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({ detail: answer.statusText }));
  throw new Error(problem.detail);
}

function say(text, bad = false) {
  status.textContent = text;
  status.className = bad ? "bad" : "";
}

async function pictureUrl(href) {
  // by fetch, because an img element sends no key
  return URL.createObjectURL(await (await ask(href)).blob());
}

function row(cells) {
  const line = document.createElement("tr");
  for (const cell of cells) line.appendChild(document.createElement("td")).textContent = cell;
  return line;
}

async function showJobs() {
  const page = await (await ask("/v1/jobs?limit=10")).json();
  const lines = page.items.map((job) =>
    row([job.id, job.type, job.status, `${job.progress.phase} ${Math.round(100 * job.progress.fraction)} %`, job.created_at]));
  document.getElementById("jobs").replaceChildren(...lines);
}

async function showModels() {
  const models = (await (await ask("/v1/models")).json()).items;
  const options = models.map((model) => new Option(`${model.name} (version ${model.version})`, model.name));
  form.elements.model.replaceChildren(...options);
  form.elements.model.value = "default";
}

async function followed(job) {
  while (!ENDED.includes(job.status)) {
    say(`${job.status}: ${job.progress.phase}`);
    await new Promise((resolve) => setTimeout(resolve, 500));
    job = await (await ask(job.links.self)).json();
  }
  if (job.status !== "succeeded") throw new Error(job.error ? job.error.detail : job.status);
  return job;
}

function showWarnings(warnings) {
  const items = warnings.map((warning) => {
    const item = document.createElement("li");
    item.textContent = `${warning.message[0].toUpperCase()}${warning.message.slice(1).replace(/\.$/, "")}.`;
    return item;
  });
  document.getElementById("warnings").replaceChildren(...items);
}

function showPicture(id, href) {
  const picture = document.getElementById(id);
  picture.hidden = href === undefined;
  if (href !== undefined) picture.src = href;
}

async function showResult(job) {
  const files = await (await ask(job.links.artifacts)).json();
  const links = await Promise.all(files.map(async (file) => {
    const link = document.createElement("a");
    link.textContent = file.name;
    link.download = file.name;
    link.href = await pictureUrl(file.href);
    return link;
  }));
  document.getElementById("files").replaceChildren(...links.flatMap((link) => [link, " "]));
  const hrefs = Object.fromEntries(links.map((link) => [link.download, link.href]));
  showPicture("sheet", hrefs["contact_sheet.png"]);
  showPicture("mask", hrefs["mask.png"]);
  document.getElementById("result").hidden = false;
  showWarnings(job.metrics.warnings ?? []);
  const view = job.metrics.input_view;
  const knows = { familiar: "the model knows such objects; ", unfamiliar: "the model does not know such objects; " };
  say(`${knows[job.metrics.verdict] ?? ""}taken from azimuth ${Math.round(view.azimuth_deg)}, elevation ${Math.round(view.elevation_deg)} degrees; ` +
    `the answer's outline agrees with the picture's to ${Math.round(100 * job.metrics.input_iou)} %`);
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { image, model, count, elevation, refine } = form.elements;
  const body = new FormData();
  body.append("image", image.files[0]);
  body.append("model", model.value || "default");
  body.append("views", JSON.stringify({ count: Number(count.value), elevation_deg: Number(elevation.value) }));
  for (const output of ["silhouettes", "mesh", "turntable"]) body.append("outputs", output);
  if (refine.checked) body.append("refine_steps", "50");
  try {
    say("sending");
    showWarnings([]);
    const answer = await ask("/v1/reconstructions", { method: "POST", body, headers: { Prefer: "wait=2" } });
    await showResult(await followed(await answer.json()));
  } catch (error) {
    say(error.message, true);
  }
  await showJobs().catch((error) => say(error.message, true));
});

form.elements.key.addEventListener("change", () => start());

function start() {
  Promise.all([showModels(), showJobs()]).catch((error) => say(error.message, true));
}

start();
