// Markdown as elements of the page. Nothing is ever parsed as HTML, so an answer cannot bring any.

const FENCE = /^(\s*)(```+|~~~+)\s*([\w+#.-]*)[^`]*$/;
const LIST = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const INLINE = /(`+)([\s\S]*?[^`])\1(?!`)|\*\*(?=\S)([\s\S]*?\S)\*\*|\*(?=[^\s*])([^*\n]*?[^\s*])\*|(?<!\w)_(?=[^\s_])([^_\n]*?[^\s_])_(?!\w)|\[([^\]\n]+)\]\((https?:\/\/[^\s)]+)\)|(https?:\/\/[^\s<>()]+[^\s<>().,;:!?'"])/g;

export function render(text, into) {
  into.replaceChildren(...blocks(text.split("\n")));
}

function blocks(lines) {
  const found = [];
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    if (!line.trim()) { at++; continue; }
    const fence = line.match(FENCE);
    if (fence) {
      const end = closing(lines, at + 1, fence[2]);
      found.push(codeBlock(lines.slice(at + 1, end).join("\n"), fence[3]));
      at = end + 1;
      continue;
    }
    const heading = line.match(/^(#{1,6})\s+(.*?)\s*#*$/);
    if (heading) { found.push(element(`h${Math.min(6, heading[1].length + 1)}`, inline(heading[2]))); at++; continue; }
    if (/^\s*([-*_])(\s*\1){2,}\s*$/.test(line)) { found.push(element("hr", [])); at++; continue; }
    if (/^\s*>/.test(line)) {
      const end = while_(lines, at, (each) => /^\s*>/.test(each));
      found.push(element("blockquote", blocks(lines.slice(at, end).map((each) => each.replace(/^\s*>\s?/, "")))));
      at = end;
      continue;
    }
    if (LIST.test(line)) {
      const [list, end] = listFrom(lines, at);
      found.push(list);
      at = end;
      continue;
    }
    if (line.includes("|") && /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/.test(lines[at + 1] ?? "")) {
      const end = while_(lines, at + 2, (each) => each.includes("|"));
      found.push(table(lines[at], lines.slice(at + 2, end)));
      at = end;
      continue;
    }
    const end = while_(lines, at + 1, (each) => each.trim() && !FENCE.test(each) && !/^#{1,6}\s/.test(each) && !LIST.test(each) && !/^\s*>/.test(each));
    found.push(element("p", inline(lines.slice(at, end).join("\n"))));
    at = end;
  }
  return found;
}

function closing(lines, from, mark) {
  for (let at = from; at < lines.length; at++) if (lines[at].trim().startsWith(mark)) return at;
  return lines.length;
}

function while_(lines, from, holds) {
  let at = from;
  while (at < lines.length && holds(lines[at])) at++;
  return at;
}

function listFrom(lines, from) {
  const [, indent, mark] = lines[from].match(LIST);
  const isOrdered = /\d/.test(mark), depth = indent.length, items = [];
  let at = from;
  while (at < lines.length) {
    const match = lines[at].match(LIST);
    if (!match || match[1].length !== depth || /\d/.test(match[2]) !== isOrdered) break;
    const own = [match[3]];
    at++;
    while (at < lines.length) {
      const next = lines[at], inner = next.match(LIST);
      if (inner && inner[1].length <= depth) break;
      if (!next.trim() && !/^\s+\S/.test(lines[at + 1] ?? "")) break;
      if (!inner && next.trim() && !/^\s/.test(next)) break;
      own.push(next.slice(Math.min(next.length - next.trimStart().length, depth + 2 + (isOrdered ? 1 : 0))));
      at++;
    }
    const inside = blocks(own);
    items.push(element("li", inside.length === 1 && inside[0].tagName === "P" ? [...inside[0].childNodes] : inside));
    if (!lines[at]?.trim() && LIST.test(lines[at + 1] ?? "")) at++;
  }
  const list = element(isOrdered ? "ol" : "ul", items);
  if (isOrdered && parseInt(mark, 10) !== 1) list.start = parseInt(mark, 10);
  return [list, at];
}

function table(head, rows) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
  const row = (line, kind) => element("tr", cells(line).map((cell) => element(kind, inline(cell))));
  return element("table", [element("thead", [row(head, "th")]), element("tbody", rows.map((line) => row(line, "td")))]);
}

function codeBlock(text, language) {
  const code = element("code", [document.createTextNode(text)]);
  if (language) code.dataset.language = language;
  const copy = element("button", [document.createTextNode("Copy")]);
  copy.type = "button";
  copy.className = "copy-code";
  copy.setAttribute("aria-label", "Copy this code");
  const box = element("div", [element("pre", [code]), copy]);
  box.className = "code";
  return box;
}

function inline(text) {
  const nodes = [];
  let at = 0;
  for (const match of text.matchAll(INLINE)) {
    if (match.index > at) nodes.push(document.createTextNode(text.slice(at, match.index)));
    const [whole, , code, bold, star, underscore, label, target, bare] = match;
    if (code !== undefined) nodes.push(element("code", [document.createTextNode(code.trim())]));
    else if (bold !== undefined) nodes.push(element("strong", inline(bold)));
    else if (star !== undefined || underscore !== undefined) nodes.push(element("em", inline(star ?? underscore)));
    else nodes.push(link(target ?? bare, label ?? bare));
    at = match.index + whole.length;
  }
  if (at < text.length) nodes.push(document.createTextNode(text.slice(at)));
  return nodes;
}

function link(target, label) {
  const anchor = element("a", [document.createTextNode(label)]);
  anchor.href = target;
  anchor.rel = "noopener noreferrer nofollow";
  anchor.target = "_blank";
  return anchor;
}

function element(name, children) {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}
