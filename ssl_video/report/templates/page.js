"use strict";
(() => {
  const fault = document.getElementById("fault");
  window.addEventListener("error", (event) => {
    fault.hidden = false;
    fault.textContent = "A part of this page could not be drawn: " + event.message;
  });

  const data = JSON.parse(document.getElementById("data").textContent);

  for (const image of document.querySelectorAll("img[data-picture]")) {
    image.src = data.pictures[image.dataset.picture];
  }

  const hover = document.getElementById("hover");
  const show = (point, event) => {
    const picture = data.pictures[point.customdata];
    if (!picture) return;
    const image = hover.querySelector("img");
    if (image.src !== picture) image.src = picture;
    hover.querySelector("span").textContent = new DOMParser().parseFromString(point.data.name, "text/html").body.textContent;
    hover.hidden = false;
    const left = Math.min(event.clientX + 18, window.innerWidth - hover.offsetWidth - 8);
    hover.style.left = left + "px";
    hover.style.top = Math.max(8, event.clientY - hover.offsetHeight - 18) + "px";
  };

  const config = {
    responsive: true,
    displayModeBar: false,
  };
  for (const [name, figure] of Object.entries(data.figures)) {
    const place = document.getElementById(name);
    Plotly.newPlot(place, figure.data, figure.layout, config);
    if (figure.data.some((trace) => Array.isArray(trace.customdata) && typeof trace.customdata[0] === "string")) {
      place.on("plotly_hover", (event) => show(event.points[0], event.event));
      place.on("plotly_unhover", () => { hover.hidden = true; });
    }
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const value = (row, column) => {
      const cell = row.cells[column];
      return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
    };
    table.querySelectorAll("thead th").forEach((heading, column) => {
      let descending = column === 2;
      const sort = () => {
        descending = !descending;
        const sign = descending ? -1 : 1;
        const rows = [...body.rows].sort((one, other) => {
          const a = value(one, column);
          const b = value(other, column);
          return sign * (a < b ? -1 : a > b ? 1 : 0);
        });
        body.append(...rows);
        for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
        heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      };
      heading.tabIndex = 0;
      heading.addEventListener("click", sort);
      heading.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
    });
  }

  document.documentElement.dataset.drawn = String(Object.keys(data.figures).length);
})();
