"use strict";
// What to show is in the address (page.html#mixed), so that it stays when a link to the next page is followed.
const kinds = ["all-negative", "mixed", "all-positive", "abstained", "ungraded"];

function show() {
  const wanted = location.hash.slice(1);
  const kind = kinds.includes(wanted) ? wanted : "all";
  let left = 0;
  for (const part of document.querySelectorAll(".filtered")) {
    part.hidden = kind !== "all" && !part.classList.contains(kind);
    left += part.hidden ? 0 : 1;
  }
  document.body.classList.toggle("abstentions-only", kind === "abstained");
  for (const link of document.querySelectorAll("a[data-filter]")) {
    link.setAttribute("aria-current", String(link.dataset.filter === kind));
  }
  for (const link of document.querySelectorAll("a[data-all]")) {
    const target = link.getAttribute("data-" + kind);
    link.classList.toggle("off", !target);
    if (target) {
      link.href = target + (kind === "all" ? "" : "#" + kind);
    } else {
      link.removeAttribute("href");
    }
  }
  document.getElementById("nothing").hidden = left > 0;
}

addEventListener("hashchange", show);
show();
