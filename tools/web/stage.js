// The rendered frame, and over it the skeleton with a handle at each joint.

// Radius of a handle, in CSS pixels: for fingers, and where handles would overlap.
const RADIUS = 8;
const MIN_RADIUS = 4;
const SVG = "http://www.w3.org/2000/svg";
const readable = (name) => name.replace("l_", "left ").replace("r_", "right ");

function element(name, attributes, parent) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  parent.append(node);
  return node;
}

// A colour of values in [0, 1], for styles.
export const cssColor = (color) => `rgb(${color.map((value) => Math.round(value * 255)).join()})`;

export class Stage {
  // canvas, overlay: elements. style: see renderPose. skeleton: a Skeleton.
  // onDrag(joint, target, isFirst): a joint is dragged to [x, y]; isFirst at the start of a drag.
  constructor(canvas, overlay, style, skeleton, onDrag) {
    this.style = style;
    this.skeleton = skeleton;
    this.overlay = overlay;
    this.onDrag = onDrag;
    [canvas.width, canvas.height] = style.frameSize;
    this.context = canvas.getContext("2d");
    this.image = this.context.createImageData(canvas.width, canvas.height);
    overlay.setAttribute("viewBox", `0 0 ${style.size[0]} ${style.size[1]}`);
    this.bones = style.bones.map(({ color }) => {
      const width = style.thickness * style.size[1] * 0.4;
      return element("line", { class: "bone", stroke: cssColor(color), "stroke-width": width }, overlay);
    });
    this.handles = new Map(skeleton.handles.map((joint) => [joint, this.#handle(joint)]));
    new ResizeObserver(() => this.#resizeHandles()).observe(overlay);
  }

  // Handles are large enough for touch, and smaller where they would overlap.
  #resizeHandles() {
    const displayed = this.overlay.getBoundingClientRect().width;
    if (!displayed || !this.keypoints) return; // hidden while the page loads
    const [width, height] = this.style.size;
    const pixel = width / displayed;
    const shown = [...this.handles.keys()].filter((joint) => this.keypoints[joint]);
    for (const joint of shown) {
      const [x, y] = this.keypoints[joint];
      const others = shown.filter((other) => other !== joint).map((other) => this.keypoints[other]);
      const nearest = Math.min(...others.map(([x1, y1]) => Math.hypot(x1 - x, y1 - y)));
      const radius = Math.min(Math.max(height / 40, RADIUS * pixel), nearest / 2);
      this.handles.get(joint).setAttribute("r", Math.max(radius, MIN_RADIUS * pixel));
    }
  }

  #handle(joint) {
    const label = readable(this.skeleton.joints[joint]);
    const handle = element("circle", { class: "handle", tabindex: 0, role: "button" }, this.overlay);
    handle.setAttribute("aria-label", `${label}: drag, or move with the arrow keys`);
    element("title", {}, handle).textContent = label;
    handle.addEventListener("pointerdown", (event) => {
      handle.setPointerCapture(event.pointerId);
      handle.classList.add("dragged");
      this.onDrag(joint, this.#position(event), true);
      event.preventDefault();
      handle.focus();
    });
    handle.addEventListener("pointermove", (event) => {
      if (handle.hasPointerCapture(event.pointerId)) this.onDrag(joint, this.#position(event), false);
    });
    handle.addEventListener("lostpointercapture", () => handle.classList.remove("dragged"));
    handle.addEventListener("keydown", (event) => this.#moveByKey(joint, event));
    return handle;
  }

  #moveByKey(joint, event) {
    const directions = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!directions[event.key] || !this.keypoints[joint]) return;
    event.preventDefault();
    const step = (this.style.size[1] / 100) * (event.shiftKey ? 5 : 1);
    const [x, y] = this.keypoints[joint];
    const [dx, dy] = directions[event.key];
    const target = [x + dx * step, y + dy * step];
    this.onDrag(joint, target, !event.repeat);
  }

  // The position of a pointer in the pose image.
  #position(event) {
    const box = this.overlay.getBoundingClientRect();
    const [width, height] = this.style.size;
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    return [(x / box.width) * width, (y / box.height) * height];
  }

  // Keypoints of the joints; null hides the skeleton.
  showSkeleton(keypoints) {
    this.keypoints = keypoints;
    this.style.bones.forEach(({ start, end }, index) => {
      const ends = keypoints && keypoints[start] && keypoints[end] && [keypoints[start], keypoints[end]];
      this.bones[index].style.display = ends ? "" : "none";
      if (ends) {
        const [[x1, y1], [x2, y2]] = ends;
        for (const [name, value] of Object.entries({ x1, y1, x2, y2 })) {
          this.bones[index].setAttribute(name, value);
        }
      }
    });
    for (const [joint, handle] of this.handles) {
      const point = keypoints && keypoints[joint];
      handle.style.display = point ? "" : "none";
      if (point) {
        handle.setAttribute("cx", point[0]);
        handle.setAttribute("cy", point[1]);
      }
    }
    this.#resizeHandles();
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
