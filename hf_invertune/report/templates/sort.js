for (const [column, head] of document.querySelectorAll("thead th").entries()) {
  head.querySelector("button").addEventListener("click", () => {
    const falling = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const body = document.querySelector("tbody");
    const value = row => row.children[column].dataset.value;
    const rows = [...body.rows].sort((a, b) => value(a).localeCompare(value(b), "en", { numeric: true }));
    body.append(...(falling ? rows.reverse() : rows));
  });
}
