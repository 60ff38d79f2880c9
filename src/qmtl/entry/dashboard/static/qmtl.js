// What a page can do with scripts on: times in the reader's own zone on hover, a chart to point at,
// news of the journal, and a mark when there are none.  Without any of it the pages can be read.
"use strict";

const $ = (selector, within = document) => within.querySelector(selector);

// ---- Times -----------------------------------------------------------------------------------

document.addEventListener("pointerover", (event) => {
  const time = event.target.closest?.("time[datetime]");
  if (time && !time.title) {
    const at = new Date(time.dateTime);
    time.title = `${at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "long" })} here`;
  }
});

// ---- Is the page up to date? -----------------------------------------------------------------

function outOfDate(why) {
  const mark = $("#link");
  if (!mark) return;
  mark.textContent = why;
  mark.hidden = !why;
}

const shownAt = () => $("#as-of")?.textContent ?? "earlier";
document.addEventListener("htmx:sseError", () => outOfDate(`Not connected: this is of ${shownAt()}`));
document.addEventListener("htmx:sseOpen", () => outOfDate(""));
document.addEventListener("htmx:sendError", () => outOfDate(`The server does not answer: this is of ${shownAt()}`));
document.addEventListener("htmx:responseError", (event) => {
  outOfDate(`${event.detail.xhr.status === 401 ? "Signed out" : "The page cannot be loaded"}: this is of ${shownAt()}`);
});

// What is told anew keeps the reader's place: what was opened stays open, what had the focus has it.
const where = (details) => details.closest("section")?.getAttribute("aria-labelledby");
let place = { open: [], link: null };
document.addEventListener("htmx:beforeSwap", () => {
  const at = document.activeElement;
  place = {
    open: [...document.querySelectorAll("main details[open]")].map(where),
    link: at?.closest("main") ? at.getAttribute("href") : null,
  };
});
document.addEventListener("htmx:afterSettle", () => {
  document.querySelectorAll("main details").forEach((each) => { each.open ||= place.open.includes(where(each)); });
  if (place.link && document.activeElement === document.body) {
    [...document.querySelectorAll("main a[href]")].find((a) => a.getAttribute("href") === place.link)?.focus();
  }
});

// A form that somebody is filling in is never taken from under their hands.
document.addEventListener("htmx:oobBeforeSwap", (event) => {
  const form = $("#actions");
  const typed = form && [...form.querySelectorAll("textarea, input:not([type=hidden])")].some((field) => field.value);
  if (event.detail.target.id === "actions" && (typed || form.contains(document.activeElement))) {
    event.detail.shouldSwap = false;
  }
});
document.addEventListener("htmx:afterRequest", (event) => {
  if (event.detail.successful && event.detail.elt.hasAttribute("data-live")) outOfDate("");
});

// A candidate's page does not change while somebody decides on it: it says that it would.
const stamp = () => JSON.stringify({ ...$("#stamp")?.dataset });
const opened = stamp();
document.addEventListener("htmx:afterSwap", () => {
  if ($("#stamp") && stamp() !== opened) $("#changed").hidden = false;
});

// ---- The chart -------------------------------------------------------------------------------

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const STAGES = {
  backtest: { colour: "--backtest", width: 1.25 },
  paper: { colour: "--paper-stage", width: 1.5, dash: [6, 3] },
  live: { colour: "--live-stage", width: 2.25 },
};

// Of a logarithmic axis, a line for each power of ten; within few of them, for twice and five times, too.
const decades = (chart, marks) => {
  const steps = chart.scales.y.max / chart.scales.y.min < 20 ? [1, 2, 5] : [1];
  return marks.map((v) => (steps.includes(Math.round(v / 10 ** Math.floor(Math.log10(v) + 1e-9))) ? v : null));
};
const day = (sec) => new Date(sec * 1000).toISOString().slice(0, 10);
const percent = (share) => `${(100 * share).toFixed(1)} %`;

function axis(more) {
  return { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") }, ...more };
}

function draw(figure, told) {
  const series = (value) => told.stages.map((stage) => ({
    label: stage,
    stroke: colour(STAGES[stage].colour),
    width: STAGES[stage].width,
    dash: STAGES[stage].dash,
    points: { show: false },
    spanGaps: false,
    value: (_chart, v) => (v == null ? "–" : value(v)),
  }));
  const when = { label: "day", value: (_chart, sec) => (sec == null ? "–" : day(sec)) };
  const width = figure.clientWidth - 24;
  const shared = { width, cursor: { sync: { key: "growth" }, y: false }, tzDate: (sec) => uPlot.tzDate(new Date(sec * 1000), "Etc/UTC") };
  figure.querySelectorAll("svg, .uplot").forEach((old) => old.remove());
  const caption = $("figcaption", figure);
  const place = (made) => figure.insertBefore(made.root, caption);
  const growth = new uPlot({
    ...shared, height: 240, series: [when, ...series((v) => `× ${v.toPrecision(4)}`)],
    scales: { y: { distr: 3 } },
    axes: [axis({}), axis({
      size: 64, filter: decades,
      grid: { stroke: colour("--line"), width: 1, filter: decades },
      ticks: { stroke: colour("--line"), filter: decades },
      values: (_chart, marks) => marks.map((v) => (v == null ? "" : `× ${v}`)),
    })],
  }, [told.t, ...told.growth]);
  const drawdown = new uPlot({
    ...shared, height: 130, legend: { show: false }, series: [when, ...series(percent)],
    axes: [axis({}), axis({ size: 64, values: (_chart, marks) => marks.map(percent) })],
  }, [told.t, ...told.drawdown]);
  place(growth);
  place(drawdown);
  return [growth, drawdown];
}

async function chart(figure) {
  let told = null, charts = [];
  const load = async () => {
    const answer = await fetch(figure.dataset.chart, { headers: { Accept: "application/json" } });
    if (!answer.ok) return;
    told = await answer.json();
    charts = draw(figure, told);
  };
  const again = () => told && (charts = draw(figure, told));
  await load();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  let width = figure.clientWidth;
  new ResizeObserver(() => {
    if (Math.abs(figure.clientWidth - width) < 2) return;
    width = figure.clientWidth;
    charts.forEach((each) => each.setSize({ width: width - 24, height: each.height }));
  }).observe(figure);
  let due = 0;
  document.addEventListener("htmx:afterSettle", (event) => {
    if (!event.detail.elt.closest?.("#live") || Date.now() < due) return;
    due = Date.now() + 5000;
    load();
  });
}

document.querySelectorAll("[data-chart]").forEach(chart);
