() => {
  // What WCAG 2.2 AA asks of contrast, labels and structure, as far as a page tells it by itself.
  const problems = [];
  const parse = (text) => {
    const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number);
    return { r, g, b, a };
  };
  const luminance = ({ r, g, b }) => {
    const [x, y, z] = [r, g, b].map((v) => {
      v /= 255;
      return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const background = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = parse(getComputedStyle(e).backgroundColor);
      if (color.a === 1) return color;
      if (color.a !== 0) problems.push(`a background half transparent: ${e.outerHTML.slice(0, 80)}`);
    }
    return { r: 255, g: 255, b: 255 };
  };
  const contrast = (one, other) => {
    const [light, dark] = [luminance(one), luminance(other)].sort((x, y) => y - x);
    return (light + 0.05) / (dark + 0.05);
  };
  let texts = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    if (!walker.currentNode.data.trim()) continue;
    const element = walker.currentNode.parentElement;
    if (!element.getClientRects().length) continue;
    texts += 1;
    const ratio = contrast(parse(getComputedStyle(element).color), background(element));
    if (ratio < 4.5) problems.push(`contrast ${ratio.toFixed(2)}: ${element.outerHTML.slice(0, 80)}`);
  }
  if (texts < 5) problems.push("hardly any text");
  for (const field of document.querySelectorAll("input:not([type=hidden]), textarea")) {
    if (!field.labels.length) problems.push(`no label: ${field.outerHTML}`);
    const border = contrast(parse(getComputedStyle(field).borderColor), background(field));
    if (border < 3) problems.push(`border ${border.toFixed(2)}: ${field.outerHTML}`);
    for (const id of (field.getAttribute("aria-describedby") || "").split(" ").filter(Boolean)) {
      if (!document.getElementById(id)) problems.push(`described by nothing: ${id}`);
    }
  }
  for (const image of document.images) {
    if (!image.hasAttribute("alt")) problems.push(`no alt: ${image.outerHTML}`);
    if (!image.naturalWidth) problems.push(`not loaded: ${image.outerHTML}`);
  }
  for (const control of document.querySelectorAll("a, button")) {
    if (!control.textContent.trim()) problems.push(`no name: ${control.outerHTML}`);
  }
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  if (new Set(ids).size !== ids.length) problems.push(`an id twice: ${ids}`);
  const levels = [...document.querySelectorAll("h1, h2, h3")].map((e) => Number(e.tagName[1]));
  if (levels.filter((level) => level === 1).length !== 1) problems.push(`headings: ${levels}`);
  if (levels.some((level, i) => i && level > levels[i - 1] + 1)) problems.push(`headings: ${levels}`);
  if (!document.documentElement.lang) problems.push("no language");
  if (!document.title) problems.push("no title");
  if (document.querySelectorAll("main").length !== 1) problems.push("not one main");
  const width = document.documentElement.scrollWidth;
  if (width > innerWidth) problems.push(`${width} px wide on a screen of ${innerWidth}`);
  return problems;
}
