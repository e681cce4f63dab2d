(() => {
  const faults = [];
  const width = document.documentElement.clientWidth;
  const shown = (element) => element.getClientRects().length > 0;
  const words = (element) => `${element.tagName.toLowerCase()} ${JSON.stringify(element.textContent.trim().slice(0, 40))}`;

  // Every part is there and has a size, and every figure shows exactly one drawing.
  for (const section of document.querySelectorAll("header, section, figure, table")) {
    const box = section.getBoundingClientRect();
    if (section.closest("details:not([open])")) continue;
    if (box.width < 40 || box.height < 10) faults.push(`no size: ${section.id || words(section)}`);
  }
  for (const figure of document.querySelectorAll("figure")) {
    const drawings = [...figure.querySelectorAll(":scope > svg")].filter(shown);
    if (drawings.length !== 1) faults.push(`${drawings.length} drawings in ${figure.id}`);
    if (drawings.some((drawing) => drawing.getBoundingClientRect().height < 100)) faults.push(`a flat drawing in ${figure.id}`);
  }

  // Nothing sticks out to the right, except in what can be scrolled by itself.
  if (document.documentElement.scrollWidth > width) faults.push(`the page is ${document.documentElement.scrollWidth} wide, of ${width}`);
  for (const element of document.querySelectorAll("body *")) {
    if (!shown(element) || element.closest(".scroll, svg")) continue;
    const box = element.getBoundingClientRect();
    if (box.right > width + 0.5 || box.left < -0.5) faults.push(`sticks out: ${words(element)}`);
  }

  // Text in drawings is whole, can be read and does not lie over other text.
  for (const drawing of [...document.querySelectorAll("figure > svg")].filter(shown)) {
    const frame = drawing.getBoundingClientRect();
    const texts = [...drawing.querySelectorAll("text")].map((text) => [text, text.getBoundingClientRect()]);
    texts.forEach(([text, box], number) => {
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1) {
        faults.push(`cut off in ${drawing.parentElement.id}: ${words(text)}`);
      }
      if (parseFloat(getComputedStyle(text).fontSize) * frame.width / drawing.viewBox.baseVal.width < 10) faults.push(`too small: ${words(text)}`);
      for (const [other, its] of texts.slice(number + 1)) {
        const over = Math.min(box.right, its.right) - Math.max(box.left, its.left) > 0.5 && Math.min(box.bottom, its.bottom) - Math.max(box.top, its.top) > 2;
        if (over) faults.push(`in ${drawing.parentElement.id}: ${words(text)} lies over ${words(other)}`);
      }
    });
    if (!drawing.querySelector(":scope > title") || !drawing.querySelector(":scope > desc")) faults.push(`${drawing.parentElement.id} has no title or description`);
  }

  // Contrast of text, as WCAG 2 counts it: 4.5 at least.
  const channels = (color) => (color.match(/[\d.]+/g) || []).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const [r, g, b, a = 1] = channels(getComputedStyle(at).backgroundColor);
      if (a === 1) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const pale = new Set();
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
    if (!own || !shown(element) || ["TITLE", "DESC", "title", "desc"].includes(element.tagName)) continue;
    const style = getComputedStyle(element);
    const [one, other] = [luminance(channels(element.namespaceURI.endsWith("svg") ? style.fill : style.color)), luminance(ground(element))];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (contrast < 4.5) pale.add(`contrast ${contrast.toFixed(1)}: ${words(element)}`);
  }
  return [...faults, ...pale].slice(0, 30);
})()
