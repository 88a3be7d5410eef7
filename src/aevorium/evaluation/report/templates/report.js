"use strict";
// Draws the charts in the page's own colours, and again when the colour scheme changes or the page is printed.
(() => {
  const charts = [...document.querySelectorAll("script[data-for]")].map((source) => ({
    place: document.getElementById(source.dataset.for),
    figure: JSON.parse(source.textContent),
  }));
  const settings = { displayModeBar: false, displaylogo: false, responsive: true, scrollZoom: false };
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const themed = (layout) => {
    const text = colour("--text"), muted = colour("--muted"), line = colour("--grid");
    const copy = structuredClone(layout);
    const hasGrid = !(copy.meta && copy.meta.grid === false);
    copy.font = { ...copy.font, color: muted, family: getComputedStyle(document.body).fontFamily };
    copy.hoverlabel = { bgcolor: colour("--surface"), bordercolor: colour("--line"), font: { color: text } };
    for (const key of Object.keys(copy).filter((name) => /^[xy]axis\d*$/.test(name))) {
      const isValue = copy[key].type !== "category" && hasGrid;
      copy[key] = { ...copy[key], gridcolor: line, linecolor: line, showgrid: isValue, showline: hasGrid, ticks: "" };
    }
    return copy;
  };

  const draw = () => {
    for (const { place, figure } of charts) {
      Plotly.react(place, figure.data, themed(figure.layout), settings);
    }
  };

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  matchMedia("print").addEventListener("change", draw);
  draw();
})();
