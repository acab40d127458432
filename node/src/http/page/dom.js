// Small helpers for the document. Data only ever becomes text: nothing here parses HTML.

const SVG = 'http://www.w3.org/2000/svg';

export const byId = (id) => document.getElementById(id);

/** Makes an element with attributes and children; strings become text. */
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same for SVG. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) set(node, name, value);
  node.append(...children);
  return node;
}

/** Sets an attribute if it is another one; null and false remove it. */
export function set(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
    return;
  }
  const text = value === true ? '' : String(value);
  if (node.getAttribute(name) !== text) node.setAttribute(name, text);
}

/** Sets the text if it is another one: an untouched node keeps the reader's selection. */
export function text(node, value) {
  const wanted = value === null || value === undefined ? '' : String(value);
  if (node.firstChild && node.firstChild === node.lastChild && node.firstChild.nodeType === 3) {
    if (node.firstChild.data !== wanted) node.firstChild.data = wanted;
  } else if (node.textContent !== wanted) {
    node.textContent = wanted;
  }
}

/** Sets a custom property or a style. The policy forbids style attributes, and allows this. */
export function style(node, name, value) {
  if (node.style.getPropertyValue(name) !== value) node.style.setProperty(name, value);
}

export function hide(node, hidden) {
  if (node.hidden !== hidden) node.hidden = hidden;
}

/**
 * Makes the children of `parent` match `items`. A child stays for as long as its key does, and is only
 * moved if it stands elsewhere, so focus and selection survive.
 */
export function keyed(parent, items, keyOf, create, update) {
  const known = parent.known ?? (parent.known = new Map());
  const wanted = new Set();
  let place = parent.firstChild;
  for (const item of items) {
    const key = String(keyOf(item));
    if (wanted.has(key)) continue;
    wanted.add(key);
    let node = known.get(key);
    if (!node) {
      node = create(item);
      known.set(key, node);
    }
    if (node === place) place = node.nextSibling;
    else parent.insertBefore(node, place);
    update(node, item);
  }
  for (const [key, node] of known) {
    if (wanted.has(key)) continue;
    node.remove();
    known.delete(key);
  }
}

/** A table row whose cells are kept in `row.cells`; `kinds` are their classes. */
export function row(kinds, attributes = {}) {
  const cells = kinds.map((kind, at) => {
    const name = kind === 'head' ? 'th' : 'td';
    const own = kind === 'head' ? { scope: 'row' } : kind ? { class: kind } : {};
    return el(name, { ...own, 'data-column': at });
  });
  return el('tr', attributes, ...cells);
}

/** Sets the texts of a row's first cells. */
export function cells(tr, values) {
  values.forEach((value, at) => {
    if (value !== undefined) text(tr.cells[at], value);
  });
}

const due = new Set();
let asked = false;

/** Runs `draw` in the next frame, once, however often it was asked for. */
export function soon(draw) {
  due.add(draw);
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    const all = [...due];
    due.clear();
    all.forEach((one) => one());
  });
}

/** Fills a select and keeps what is chosen, if it is still there. */
export function options(select, values, first = null) {
  const wanted = first === null ? values : ['', ...values];
  const now = [...select.options].map((option) => option.value);
  if (wanted.length === now.length && wanted.every((value, at) => value === now[at])) return;
  const chosen = select.value;
  const make = (value) => el('option', { value }, value === '' ? first : value);
  select.replaceChildren(...wanted.map(make));
  if (wanted.includes(chosen)) select.value = chosen;
}
