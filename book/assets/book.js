/* Two small things, without a library: the meaning of a term or citation when it is pointed at or focused,
   and a keyboard stop for every box that scrolls sideways, only while it does. */
(function () {
  "use strict";
  var root = document.documentElement.dataset.content_root || "./";

  function tips() {
    var said = window.bsTips || {};
    var base = new URL(root, location.href).href;
    var tip = document.createElement("div");
    tip.id = "bs-tip";
    tip.setAttribute("role", "tooltip");
    tip.hidden = true;
    document.body.appendChild(tip);
    var current = null, closing = 0;

    function close() {
      tip.hidden = true;
      if (current) current.removeAttribute("aria-describedby");
      current = null;
    }
    function later() { closing = setTimeout(close, 160); }
    function stay() { clearTimeout(closing); }

    function open(link, words) {
      stay();
      if (current && current !== link) close();
      current = link;
      tip.textContent = words;
      tip.hidden = false;
      link.setAttribute("aria-describedby", "bs-tip");
      var at = link.getClientRects()[0] || link.getBoundingClientRect();
      var wide = document.documentElement.clientWidth;
      var left = Math.max(8, Math.min(at.left, wide - tip.offsetWidth - 8));
      var below = at.bottom + tip.offsetHeight + 12 < window.innerHeight || at.top < tip.offsetHeight + 12;
      tip.style.left = left + window.scrollX + "px";
      tip.style.top = (below ? at.bottom + 6 : at.top - tip.offsetHeight - 6) + window.scrollY + "px";
    }

    document.querySelectorAll("article a.internal[href*='#']").forEach(function (link) {
      var key = link.href.indexOf(base) === 0 ? link.href.slice(base.length) : "";
      var words = said[key];
      if (!words || link.classList.contains("headerlink") || link.closest(".citation, dl.glossary dt")) return;
      link.classList.add(key.indexOf("#term-") > 0 ? "bs-term" : "bs-cite");
      link.addEventListener("mouseenter", function () { open(link, words); });
      link.addEventListener("focus", function () { open(link, words); });
      link.addEventListener("mouseleave", later);
      link.addEventListener("blur", close);
    });
    tip.addEventListener("mouseenter", stay);
    tip.addEventListener("mouseleave", later);
    document.addEventListener("keydown", function (e) { if (e.key === "Escape") close(); });
  }

  function label(box) {
    var figure = box.closest("figure"), caption = box.querySelector("caption") || (figure && figure.querySelector("figcaption"));
    if (caption) return caption.textContent.trim().slice(0, 120);
    var section = box.closest("section"), heading = section && section.querySelector("h1, h2, h3, h4");
    var kind = box.querySelector("table") ? "Table" : box.querySelector("svg") ? "Figure" : "Code or output";
    return kind + (heading ? " in " + heading.firstChild.textContent.trim() : "");
  }

  function scrollers() {
    document.querySelectorAll(".bs-scroll, .bs-drawing, article pre, article .cell_output .output, div.math, mjx-container[display]").forEach(function (box) {
      var wide = box.scrollWidth > box.clientWidth + 1 && getComputedStyle(box).overflowX !== "visible";
      if (wide) {
        box.tabIndex = 0;
        if (box.tagName !== "MJX-CONTAINER") { box.setAttribute("role", "group"); box.setAttribute("aria-label", label(box)); }
      } else if (box.getAttribute("role") === "group") {
        box.removeAttribute("tabindex"); box.removeAttribute("role"); box.removeAttribute("aria-label");
      }
    });
  }

  document.addEventListener("DOMContentLoaded", function () {
    tips();
    scrollers();
    var waiting = 0;
    window.addEventListener("resize", function () { clearTimeout(waiting); waiting = setTimeout(scrollers, 120); });
  });
})();
