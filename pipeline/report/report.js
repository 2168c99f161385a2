"use strict";
(() => {
  // Pictures: a click, Enter or Space shows the next layer; arrow keys go either way.
  const layers = (frame) => [...frame.querySelectorAll("img:not([data-beside])")];
  const shown = (frame) => layers(frame).findIndex((image) => !image.classList.contains("under"));
  const show = (frame, index) => {
    const images = layers(frame);
    images.forEach((image, at) => image.classList.toggle("under", at !== index));
    const word = images[index].dataset.word;
    frame.querySelector(".layer:not(.was)").textContent = word;
    frame.setAttribute("aria-label", `${frame.dataset.name}: ${word}, press for the next view`);
    isolate(frame);
  };
  const turn = (frame, by) => {
    const count = layers(frame).length;
    show(frame, (shown(frame) + by + count) % count);
  };
  const all = [...document.querySelectorAll(".frame")];
  const frames = all.filter((frame) => frame.matches("button"));
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

  // One class alone: a press on its entry in the legend darkens everything else, a second one lights all again.
  let alone = null;
  const maskOf = (frame, layer) => frame.querySelector(`img[data-layer="${layer.dataset.mask}"]`);
  const oneClass = async (mask, color) => {
    mask.loading = "eager";
    await mask.decode();
    const canvas = document.createElement("canvas");
    canvas.width = mask.naturalWidth;
    canvas.height = mask.naturalHeight;
    const context = canvas.getContext("2d");
    context.drawImage(mask, 0, 0);
    const picture = context.getImageData(0, 0, canvas.width, canvas.height);
    const bytes = picture.data;
    const [red, green, blue] = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
    for (let at = 0; at < bytes.length; at += 4) {
      const here = bytes[at] === red && bytes[at + 1] === green && bytes[at + 2] === blue;
      if (!here) bytes[at] = bytes[at + 1] = bytes[at + 2] = 0;
      bytes[at + 3] = here ? 190 : 150;
    }
    context.putImageData(picture, 0, 0);
    canvas.className = "alone";
    return canvas;
  };
  const isolate = async (frame) => {
    const color = alone;
    const layer = layers(frame)[shown(frame)];
    const mask = color && layer ? maskOf(frame, layer) : null;
    const canvas = mask ? await oneClass(mask, color) : null;
    if (alone !== color || layers(frame)[shown(frame)] !== layer) return; // something else was chosen meanwhile
    frame.querySelectorAll("canvas").forEach((old) => old.remove());
    frame.classList.toggle("isolated", canvas !== null);
    if (canvas) frame.querySelector(".layer").before(canvas);
  };
  const chips = [...document.querySelectorAll(".chip[data-color]")];
  for (const chip of chips) {
    chip.disabled = false;
    chip.addEventListener("click", () => {
      alone = alone === chip.dataset.color ? null : chip.dataset.color;
      for (const each of chips) each.setAttribute("aria-pressed", String(each.dataset.color === alone));
      all.forEach(isolate);
    });
  }

  // The enlarged view: the photo with its mask over it, as strong as the slider says; arrow keys show the neighbours.
  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const strengths = { overlay: 0.55, prediction: 0.55, truth: 0.55, mask: 1, photo: 0 };
  let zoom = null;
  const build = () => {
    const stage = make("div", { className: "stage" });
    const name = make("p", { className: "key" });
    const choices = make("div", { className: "views" });
    const slider = make("input", { type: "range", min: 0, max: 100 });
    const strength = make("label", { className: "strength" }, "Mask", slider);
    const step = (word, by) => {
      const button = make("button", { type: "button", textContent: word });
      button.addEventListener("click", () => open(all[(all.indexOf(zoom.frame) + by + all.length) % all.length]));
      return button;
    };
    const close = make("button", { type: "button", textContent: "Close" });
    close.addEventListener("click", () => zoom.dialog.close());
    const bar = make("div", { className: "zoom-bar" }, name, choices, strength, step("Previous", -1), step("Next", 1), close);
    const dialog = make("dialog", { className: "zoom" }, stage, bar);
    dialog.setAttribute("aria-label", "Enlarged picture");
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    dialog.addEventListener("keydown", (event) => {
      if (event.target === slider || (event.key !== "ArrowRight" && event.key !== "ArrowLeft")) return;
      const by = event.key === "ArrowRight" ? 1 : -1;
      open(all[(all.indexOf(zoom.frame) + by + all.length) % all.length]);
    });
    slider.addEventListener("input", () => { stage.lastChild.style.opacity = slider.value / 100; });
    document.body.append(dialog);
    return { dialog, stage, name, choices, slider, strength, frame: null };
  };
  const view = async (image) => {
    const { stage, frame, choices, slider, strength } = zoom;
    for (const button of choices.children) {
      button.setAttribute("aria-pressed", String(button.dataset.layer === image.dataset.layer));
    }
    const mask = image.dataset.layer in strengths ? maskOf(frame, image) : null;
    const photo = frame.querySelector('img[data-layer="photo"]');
    const copy = (of) => make("img", { src: of.src, alt: "" });
    const over = mask ? (alone ? await oneClass(mask, alone) : copy(mask)) : null;
    if (zoom.frame !== frame) return;
    strength.hidden = over === null || photo === null;
    if (over) {
      slider.value = alone && image.dataset.layer !== "photo" ? 100 : strengths[image.dataset.layer] * 100;
      over.className = "mask";
      over.style.opacity = strength.hidden ? 1 : slider.value / 100;
    }
    stage.replaceChildren(...(over ? [...(photo ? [copy(photo)] : []), over] : [copy(image)]));
  };
  const open = (frame) => {
    zoom ??= build();
    zoom.frame = frame;
    zoom.name.textContent = frame.dataset.name;
    const images = [...layers(frame), ...frame.querySelectorAll('img[data-layer="before"]')];
    zoom.choices.replaceChildren(
      ...images.map((image) => {
        const button = make("button", { type: "button", textContent: image.dataset.word });
        button.dataset.layer = image.dataset.layer;
        button.addEventListener("click", () => view(image));
        return button;
      }),
    );
    if (!zoom.dialog.open) zoom.dialog.showModal();
    view(images[Math.max(0, shown(frame))]);
  };
  for (const frame of all) {
    const button = make("button", { type: "button", className: "enlarge", textContent: "Enlarge" });
    button.setAttribute("aria-label", `Enlarge ${frame.dataset.name}`);
    button.addEventListener("click", () => open(frame));
    frame.after(button);
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
