// The inside of a paragraph: emphasis, code, links, as DOM nodes. Never as markup: a tag in the text is text.
//
// Whatever opens must close within kReach characters. So text further back than that can never change its meaning,
// and a paragraph that grows by one token at a time need not be read again from its start (see Paragraph in
// markdown.js).
import {el} from './dom.js';

export const kReach = 1000;
const kPiece = 500;

const kSpace = /\s/;
const kCombines = /^[\p{M}\u200d\udc00-\udfff]/u;
const kWord = /[\p{L}\p{N}_]/u;
const kEntities = {'&amp;': '&', '&lt;': '<', '&gt;': '>', '&quot;': '"', '&#39;': "'", '&nbsp;': '\u00a0'};
const kSchemes = new Set(['http:', 'https:', 'mailto:']);

// The address if a link may lead there, else null: javascript:, data:, file: and relative ones are refused.
export function safeAddress(text) {
  try {
    const address = new URL(text);
    return kSchemes.has(address.protocol) ? address.href : null;
  } catch {
    return null;
  }
}

function link(address, children) {
  return el('a', {href: address, title: address, target: '_blank', rel: 'noopener noreferrer nofollow', dir: 'auto'}, children);
}

// A list of {node, end}: the pieces that stand side by side, and where in the text each ends. node is text, or a
// function that makes the node: most pieces of a text that grows were drawn before and need not be made again. before:
// the character before the text, which decides whether a mark at its start may open or close.
export function inlinePieces(text, before = '\n') {
  const out = [];   // a mark that stays open is text
  const open = [];  // {at: index in out, kind, length, start: offset in text}
  let plain = '';   // text since the last piece

  const flush = (end) => {
    if (plain) out.push({node: plain, end});
    plain = '';
  };
  // Everything since the opening mark becomes the children of one node.
  const wrap = (opener, make, end) => {
    const inner = out.splice(opener.at).slice(1).map((piece) => piece.node);
    open.length = open.indexOf(opener);
    out.push({node: () => make(inner.map(built)), end});
  };
  const find = (kind, longest, at) => {
    for (let i = open.length - 1; i >= 0 && at - open[i].start <= kReach; --i)
      if (open[i].kind === kind && open[i].length <= longest) return open[i];
    return null;
  };

  let i = 0;
  const push = (make, end) => {
    flush(i);
    out.push({node: make, end});
    i = end;
  };
  while (i < text.length) {
    const c = text[i];
    if (c === '\n') {
      plain = plain.trimEnd();
      push(() => el('br'), i + 1);
    } else if (c === '`') {
      const ticks = runLength(text, i);
      const close = closingTicks(text, i + ticks, ticks);
      if (close < 0) {
        plain += text.slice(i, i + ticks);
        i += ticks;
      } else {
        const code = text.slice(i + ticks, close).replace(/\n/g, ' ');
        const padded = code.startsWith(' ') && code.endsWith(' ') && code.trim() !== '';
        push(() => el('code', {dir: 'auto'}, visibleControls(padded ? code.slice(1, -1) : code)), close + ticks);
      }
    } else if (c === '\\') {
      const next = text[i + 1] ?? '';
      const close = next === '(' || next === '[' ? nearIndex(text, next === '(' ? '\\)' : '\\]', i + 2) : -1;
      if (close >= 0) {
        push(mathNode(text.slice(i, close + 2)), close + 2);
      } else if (/[!"#$%&'*+,\-./:;<=>?@^_`{|}~\\]/.test(next)) {
        plain += next;
        i += 2;
      } else {
        plain += c;
        ++i;
      }
    } else if (c === '$' && text[i + 1] === '$') {
      const close = nearIndex(text, '$$', i + 2);
      if (close > i + 2) push(mathNode(text.slice(i, close + 2)), close + 2);
      else plain += '$$', i += 2;
    } else if (c === '*' || c === '_' || c === '~') {
      const length = runLength(text, i);
      const prev = i > 0 ? text[i - 1] : before;
      const next = text[i + length] ?? '\n';
      let mayOpen = !kSpace.test(next), mayClose = !kSpace.test(prev);
      if (c === '_' && kWord.test(prev)) mayOpen = false;
      if (c === '_' && kWord.test(next)) mayClose = false;
      const start = i;
      let left = length;
      flush(start);
      if (length > 3 || (c === '~' && length !== 2)) mayOpen = mayClose = false;
      while (mayClose && left > 0) {
        const opener = find(c, left, start);
        if (!opener) break;
        left -= opener.length;
        const tag = c === '~' ? 'del' : opener.length === 2 ? 'strong' : 'em';
        wrap(opener, (inner) => el(tag, {}, inner), start + length - left);
      }
      if (mayOpen) {
        if (left === 1 || left === 3) {
          open.push({at: out.length, kind: c, length: 1, start});
          out.push({node: c, end: start + length - left + 1});
          --left;
        }
        if (left === 2) {
          open.push({at: out.length, kind: c, length: 2, start});
          out.push({node: c + c, end: start + length});
          left = 0;
        }
      }
      plain = c.repeat(left);
      i = start + length;
    } else if (c === '[' || (c === '!' && text[i + 1] === '[')) {
      const mark = c === '[' ? '[' : '![';
      flush(i);
      open.push({at: out.length, kind: '[', length: 1, start: i, image: mark === '!['});
      i += mark.length;
      out.push({node: mark, end: i});
    } else if (c === ']') {
      const opener = find('[', 1, i);
      const target = opener && /^\(\s*<?([^\s<>]*?)>?(?:\s+(?:"[^"\n]*"|'[^'\n]*'))?\s*\)$/.exec(balanced(text, i + 1));
      const address = target ? safeAddress(target[1]) : null;
      if (address) {
        flush(i);
        const end = i + 1 + target[0].length;
        // A picture from somewhere else would tell that place what was said here: it is named, not loaded.
        wrap(opener, (inner) => link(address, opener.image ? ['image: ', ...(inner.length ? inner : [address])]
                                                           : inner.length ? inner : [address]), end);
        if (!opener.image) open.splice(0, open.length, ...open.filter((mark) => mark.kind !== '[' || mark.image));
        i = end;
      } else {
        if (opener) open.splice(open.indexOf(opener), 1);
        plain += c;
        ++i;
      }
    } else if (c === '<') {
      const tag = /^<br\s*\/?>/i.exec(text.slice(i, i + 8));
      const auto = tag ? null : /^<((?:https?:\/\/|mailto:)[^\s<>]+)>/i.exec(text.slice(i, i + kReach));
      const address = auto && safeAddress(auto[1]);
      if (tag) push(() => el('br'), i + tag[0].length);
      else if (address) push(() => link(address, [auto[1]]), i + auto[0].length);
      else plain += c, ++i;
    } else if (c === 'h' && /^https?:\/\/[^\s]/.test(text.slice(i, i + 9)) && !kWord.test(i > 0 ? text[i - 1] : before) &&
               !find('[', 1, i)) {
      const written = bareAddress(text, i);
      const address = safeAddress(written);
      if (address) push(() => link(address, [written]), i + written.length);
      else plain += c, ++i;
    } else if (c === '&') {
      const entity = /^&(?:amp|lt|gt|quot|nbsp|#39);/.exec(text.slice(i, i + 7));
      plain += entity ? kEntities[entity[0]] : c;
      i += entity ? entity[0].length : 1;
    } else if (c === '\u202d' || c === '\u202e') {  // turns the order of what follows: no script needs it
      push(() => controlNode(c), i + 1);
    } else {
      let end = i + 1;  // up to the next character that may mean something
      while (end < text.length && end < i + kPiece && !/[\n`\\$*_~[\]!<h&\u202d\u202e]/.test(text[end])) ++end;
      plain += text.slice(i, end);
      i = end;
    }
    // Long text comes in pieces, so that a paragraph can be done with its beginning; not inside a character.
    if (plain.length >= kPiece && (kSpace.test(plain.at(-1)) || (plain.length >= 2 * kPiece && !kCombines.test(text.slice(i, i + 2))))) {
      flush(i);
    }
  }
  flush(text.length);
  return merged(out);
}

// Marks that nothing closed are text beside text: fewer nodes.
function merged(pieces) {
  const joined = [];
  for (const piece of pieces) {
    const last = joined.at(-1);
    if (typeof piece.node === 'string' && typeof last?.node === 'string' && last.node.length + piece.node.length < kPiece) {
      last.node += piece.node;
      last.end = piece.end;
    } else {
      joined.push(piece);
    }
  }
  return joined;
}

export function inlineNodes(text) {
  return inlinePieces(text).map((piece) => built(piece.node));
}

export const built = (node) => (typeof node === 'string' ? document.createTextNode(node) : node());

const mathNode = (text) => () => el('span', {class: 'math', dir: 'ltr'}, text);

function runLength(text, i) {
  let end = i;
  while (text[end] === text[i]) ++end;
  return end - i;
}

function nearIndex(text, what, from) {
  const found = text.slice(from, from + kReach).indexOf(what);
  return found < 0 ? -1 : from + found;
}

function closingTicks(text, from, ticks) {
  const end = Math.min(text.length, from + kReach);
  for (let i = from; i < end;) {
    if (text[i] !== '`') {
      ++i;
      continue;
    }
    const length = runLength(text, i);
    if (length === ticks) return i;
    i += length;
  }
  return -1;
}

// From "(" to the ")" that closes it, parentheses in pairs; or "".
function balanced(text, from) {
  if (text[from] !== '(') return '';
  let depth = 0;
  const end = Math.min(text.length, from + kReach);
  for (let i = from; i < end; ++i) {
    if (text[i] === '(') ++depth;
    if (text[i] === ')' && --depth === 0) return text.slice(from, i + 1);
  }
  return '';
}

function bareAddress(text, from) {
  let found = /^[^\s<>"`]+/.exec(text.slice(from, from + kReach))[0];
  for (;;) {
    const last = found.at(-1);
    if ('.,;:!?\'*_~]}'.includes(last) || (last === ')' && count(found, ')') > count(found, '('))) found = found.slice(0, -1);
    else return found;
  }
}

function count(text, character) {
  return text.split(character).length - 1;
}

// In code, characters that reorder or hide what surrounds them are shown by their number ("Trojan Source",
// CVE-2021-42574). Copying gives the text as it came.
const kControls = /([\u202a-\u202e\u2066-\u2069\u200b\u2060\ufeff])/;

export function visibleControls(code) {
  if (!kControls.test(code)) return [code];
  return code.split(kControls).map((part, i) => {
    if (i % 2 === 0) return part;
    return controlNode(part);
  });
}

function controlNode(character) {
  const name = `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}`;
  return el('span', {class: 'control', title: 'an invisible character'}, name);
}
