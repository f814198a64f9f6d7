// What is seen: the painted picture, and over it the skeleton with a handle at each joint.

const LEAST_RADIUS = 8; // of a handle, in pixels of the screen
const SVG = "http://www.w3.org/2000/svg";
const spoken = (name) => name.replace("l_", "left ").replace("r_", "right ");

function element(name, attributes, parent) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  parent.append(node);
  return node;
}

export class Stage {
  // canvas, overlay: elements. look: as of paintPose. skeleton: a Skeleton.
  // onDrag(joint, target, isFirst): a joint is dragged to [column, row]; isFirst where a drag begins.
  constructor(canvas, overlay, look, skeleton, onDrag) {
    this.look = look;
    this.skeleton = skeleton;
    this.overlay = overlay;
    this.onDrag = onDrag;
    [canvas.width, canvas.height] = look.frame;
    this.context = canvas.getContext("2d");
    this.image = this.context.createImageData(canvas.width, canvas.height);
    overlay.setAttribute("viewBox", `0 0 ${look.size[0]} ${look.size[1]}`);
    this.bones = look.bones.map(({ color }) => {
      const stroke = `rgb(${color.map((value) => Math.round(value * 255)).join()})`;
      return element("line", { class: "bone", stroke, "stroke-width": look.thickness * look.size[1] * 0.4 }, overlay);
    });
    this.handles = new Map(skeleton.handles.map((joint) => [joint, this.#handle(joint)]));
    new ResizeObserver(() => this.#resizeHandles()).observe(overlay);
  }

  // Handles are not smaller than a finger can grab.
  #resizeHandles() {
    const shown = this.overlay.getBoundingClientRect().width;
    if (!shown) return; // hidden while the page loads
    const [width, height] = this.look.size;
    const radius = Math.max(height / 40, (LEAST_RADIUS * width) / shown);
    this.handles.forEach((handle) => handle.setAttribute("r", radius));
  }

  #handle(joint) {
    const label = spoken(this.skeleton.joints[joint]);
    const handle = element("circle", { class: "handle", tabindex: 0, role: "button" }, this.overlay);
    handle.setAttribute("aria-label", `${label}: drag, or move with the arrow keys`);
    element("title", {}, handle).textContent = label;
    handle.addEventListener("pointerdown", (event) => {
      handle.setPointerCapture(event.pointerId);
      handle.classList.add("dragged");
      this.onDrag(joint, this.#place(event), true);
      event.preventDefault();
      handle.focus();
    });
    handle.addEventListener("pointermove", (event) => {
      if (handle.hasPointerCapture(event.pointerId)) this.onDrag(joint, this.#place(event), false);
    });
    handle.addEventListener("lostpointercapture", () => handle.classList.remove("dragged"));
    handle.addEventListener("keydown", (event) => this.#moveByKey(joint, event));
    return handle;
  }

  #moveByKey(joint, event) {
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!ways[event.key] || !this.places[joint]) return;
    event.preventDefault();
    const step = (this.look.size[1] / 100) * (event.shiftKey ? 5 : 1);
    const target = ways[event.key].map((way, axis) => this.places[joint][axis] + way * step);
    this.onDrag(joint, target, !event.repeat);
  }

  // The place of a pointer in the pose picture.
  #place(event) {
    const box = this.overlay.getBoundingClientRect();
    const [width, height] = this.look.size;
    return [((event.clientX - box.left) / box.width) * width, ((event.clientY - box.top) / box.height) * height];
  }

  // Places of the joints; null hides the skeleton.
  showSkeleton(places) {
    this.places = places;
    this.look.bones.forEach(({ start, end }, index) => {
      const ends = places && places[start] && places[end] && [places[start], places[end]];
      this.bones[index].style.display = ends ? "" : "none";
      if (ends) {
        const [[x1, y1], [x2, y2]] = ends;
        Object.entries({ x1, y1, x2, y2 }).forEach(([name, value]) => this.bones[index].setAttribute(name, value));
      }
    });
    for (const [joint, handle] of this.handles) {
      const place = places && places[joint];
      handle.style.display = place ? "" : "none";
      if (place) {
        handle.setAttribute("cx", place[0]);
        handle.setAttribute("cy", place[1]);
      }
    }
  }

  // A frame, Float32Array of 3 x height x width.
  showFrame(frame) {
    const pixels = this.image.width * this.image.height;
    const data = this.image.data; // clamps and rounds
    for (let index = 0; index < pixels; index++) {
      for (let channel = 0; channel < 3; channel++) {
        data[4 * index + channel] = frame[channel * pixels + index] * 255;
      }
      data[4 * index + 3] = 255;
    }
    this.context.putImageData(this.image, 0, 0);
  }
}
