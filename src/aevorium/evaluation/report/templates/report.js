"use strict";
// Draws the charts in the page's own colours, and again when the colour scheme changes or the page is printed.
(() => {
  const charts = [...document.querySelectorAll("script[data-for]")].map((source) => ({
    place: document.getElementById(source.dataset.for),
    figure: source.textContent,
  }));
  const settings = { displayModeBar: false, displaylogo: false, responsive: true, scrollZoom: false };
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // A figure names the page's colours, such as "var(--synthetic)"; plotly needs them resolved.
  const resolve = (text) => text.replace(/var\((--[a-z]+)\)/g, (_, name) => colour(name));

  const themed = (layout) => {
    const hasGrid = !(layout.meta && layout.meta.grid === false);
    layout.font = { ...layout.font, color: colour("--muted"), family: getComputedStyle(document.body).fontFamily };
    layout.hoverlabel = { bgcolor: colour("--surface"), bordercolor: colour("--line"), font: { color: colour("--text") } };
    for (const key of Object.keys(layout).filter((name) => /^[xy]axis\d*$/.test(name))) {
      layout[key] = { ...layout[key], gridcolor: colour("--grid"), linecolor: colour("--line"), showgrid: hasGrid && layout[key].showgrid !== false, showline: hasGrid, ticks: "" };
    }
    return layout;
  };

  const draw = () => {
    for (const { place, figure } of charts) {
      const { data, layout } = JSON.parse(resolve(figure));
      Plotly.react(place, data, themed(layout), settings);
    }
  };

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  matchMedia("print").addEventListener("change", draw);
  draw();
})();
