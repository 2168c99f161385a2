"use strict";
(() => {
  const words = { overlay: "overlay", photo: "photo", mask: "mask", before: "overlay of the earlier run" };

  // Pictures: a click, Enter or Space shows the next layer; arrow keys go either way.
  const layers = (frame) => [...frame.querySelectorAll("img")];
  const shown = (frame) => layers(frame).findIndex((image) => !image.classList.contains("under"));
  const show = (frame, index) => {
    const images = layers(frame);
    images.forEach((image, at) => image.classList.toggle("under", at !== index));
    const word = words[images[index].dataset.layer];
    frame.querySelector(".layer").textContent = word;
    frame.setAttribute("aria-label", `${frame.dataset.name}: ${word}, press for the next view`);
  };
  const turn = (frame, by) => {
    const count = layers(frame).length;
    show(frame, (shown(frame) + by + count) % count);
  };
  const frames = [...document.querySelectorAll("button.frame")];
  for (const frame of frames) {
    frame.addEventListener("click", () => turn(frame, 1));
    frame.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowRight" && event.key !== "ArrowLeft") return;
      event.preventDefault();
      turn(frame, event.key === "ArrowRight" ? 1 : -1);
    });
  }
  const choice = document.querySelector(".switch");
  if (choice) {
    choice.hidden = false;
    choice.addEventListener("change", (event) => {
      for (const frame of frames) {
        const index = layers(frame).findIndex((image) => image.dataset.layer === event.target.value);
        if (index >= 0) show(frame, index);
      }
    });
  }

  // Theme: as the system has it, light, dark. Remembered where the browser lets a file remember anything.
  const themes = ["system", "light", "dark"];
  const button = document.getElementById("theme");
  const remembered = () => {
    try { return localStorage.getItem("fcn-report-theme"); } catch { return null; }
  };
  const apply = (theme) => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
  };
  let theme = themes.includes(remembered()) ? remembered() : "system";
  apply(theme);
  button.hidden = false;
  button.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    apply(theme);
    try { localStorage.setItem("fcn-report-theme", theme); } catch { /* then for this visit only */ }
  });
})();
