// Markdown as models write it, drawn while it arrives. Each complete line is read once; what is on the page stays
// there and grows. Only the line that is still arriving, and the last few kilobytes of the paragraph it belongs to,
// are drawn again with the next piece. So an answer of n characters costs O(n) however it is split, and however it is
// split the nodes come out the same (page_slow_test.py checks both).
//
// Known: headings, paragraphs (a line break stays one), fenced code, lists (nested, numbered, tasks), quotes, tables,
// rules; inline.js has what is inside a line. Not known: HTML, indented code, footnotes, reference links.
import {copyFrom, el, icon} from './dom.js';
import {built, inlineNodes, inlinePieces, kReach, visibleControls} from './inline.js';

const kDeepest = 10;      // quotes and lists inside each other; deeper ones are text
const kLongLine = 4000;   // a line that is still arriving is no longer drawn anew past this
const kColumns = 50;

// None of these may take more than linear time on any line: a model can be made to write what it likes.
const kFence = /^ {0,3}(`{3,}|~{3,})/;
const kHeading = /^ {0,3}(#{1,6})(?=[ \t]|$)/;
const kRule = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const kQuote = /^ {0,3}> ?/;
const kItem = /^( *)([-*+]|\d{1,9}[.)])(?:( +)(?=\S)|[ \t]*$)/;
const kDelimiters = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const kOnlyMarks = /^\s*(?:[-*+>~|_=]{1,3}|#{1,6}|`{1,3}[^`\s]*|\d{1,9}[.)])\s*$/;

export class MarkdownStream {
  #blocks;
  #line = '';      // what came of the line that is still arriving
  #pending = '';   // what came since the last draw()
  #growing = null; // the leaf that takes the rest of a very long line

  constructor(root) {
    this.#blocks = new Blocks(root, 0);
  }

  append(text) {
    this.#pending += text;
  }

  draw() {
    if (!this.#pending) return;
    this.#take();
    if (!this.#growing && this.#line.length > kLongLine) {
      this.#blocks.line(this.#line);
      this.#growing = this.#blocks.leaf();
      this.#line = '';
    }
    // A line that so far is only marks may become anything: wait for the next character.
    this.#blocks.draw(kOnlyMarks.test(this.#line) ? '' : this.#line);
  }

  // The text is complete.
  finish() {
    this.#take();
    if (this.#line) this.#blocks.line(this.#line);
    this.#line = '';
    this.#blocks.end();
  }

  #take() {
    const lines = this.#pending.split('\n');
    this.#pending = '';
    lines.forEach((text, i) => {
      if (i > 0) {  // a line has ended before this text
        if (!this.#growing) this.#blocks.line(this.#line.replace(/\r$/, ''));
        this.#growing = null;
        this.#line = '';
      }
      if (this.#growing) this.#growing.extend(text);
      else this.#line += text;
    });
  }
}

export function drawMarkdown(root, text) {
  const stream = new MarkdownStream(root);
  stream.append(text);
  stream.finish();
}

// The blocks inside one parent (the answer, a quote, a list item), the last of which is open. A block has
// continues(line): would this line belong to it; take(line); draw(partial): show what was taken and, for now, a line
// that is still arriving; end(). leaf(): what grows by text alone.
class Blocks {
  #open = null;
  #ghost = null;  // shows a line that is still arriving and would start a block of its own

  constructor(parent, depth) {
    this.parent = parent;
    this.depth = depth;
  }

  line(line) {
    this.#dropGhost();
    if (this.#open instanceof Paragraph && this.#open.isHeaderFor(line)) {
      const header = this.#open.text;
      this.#open.remove();
      this.#open = new Table(this.parent, header, line);
      return;
    }
    if (this.#open?.continues(line)) {
      this.#open.take(line);
      return;
    }
    this.#close();
    if (line.trim() === '') return;
    this.#open = this.#start(line);
  }

  draw(partial) {
    this.#dropGhost();
    // Under a line with bars, a line of dashes and bars will most likely make a table of it: not shown as text.
    if (this.#open instanceof Paragraph && /^[|: \t-]+$/.test(partial) && this.#open.mayBeHeader()) partial = '';
    const belongs = partial === '' || this.#open?.continues(partial);
    this.#open?.draw(belongs ? partial : '');
    if (belongs || partial.trim() === '') return;
    this.#ghost = this.parent.appendChild(el('div', {class: 'ghost'}));
    const blocks = new Blocks(this.#ghost, this.depth);
    blocks.line(partial);
    blocks.draw('');
  }

  end() {
    this.#dropGhost();
    this.#close();
  }

  leaf() {
    return this.#open?.leaf?.() ?? null;
  }

  // May this line go on with the paragraph that is open at the end of this block, without the block's own mark?
  continuesParagraph(line) {
    if (this.#open instanceof Paragraph) return this.#open.continues(line);
    return this.#open?.inner?.continuesParagraph(line) ?? false;
  }

  #close() {
    this.#open?.end();
    this.#open = null;
  }

  #dropGhost() {
    this.#ghost?.remove();
    this.#ghost = null;
  }

  #start(line) {
    const fence = fenceOf(line);
    if (fence) return new Code(this.parent, fence);
    const heading = kHeading.exec(line);
    if (heading) return new Heading(this.parent, heading[1].length, line.slice(heading[0].length));
    if (kRule.test(line)) return new Rule(this.parent);
    if (this.depth < kDeepest) {
      if (kQuote.test(line)) return new Quote(this.parent, line, this.depth);
      if (kItem.test(line)) return new List(this.parent, line, this.depth);
    }
    return new Paragraph(this.parent, line, this.depth);
  }
}

function fenceOf(line) {
  const mark = kFence.exec(line);
  const name = mark ? line.slice(mark[0].length).trim() : '';
  if (!mark || (mark[1][0] === '`' && name.includes('`'))) return null;  // ```x``` is code inside a line
  return {mark: mark[1], name: name.split(/\s/)[0].slice(0, 30), indent: mark[0].length - mark[1].length};
}

function startsBlock(line) {
  if (fenceOf(line) || kHeading.test(line) || kRule.test(line) || kQuote.test(line)) return true;
  const item = kItem.exec(line);
  return item !== null && item[1].length < 4 && item[3] !== undefined;  // an empty item does not end a paragraph
}

const isSame = (a, b) => a.end === b.end && (typeof a.node === 'string' ? a.node === b.node : typeof b.node !== 'string');

class Paragraph {
  #p;
  #before = '\n';  // the character before this.text
  #tail = [];      // the pieces of this.text, with the nodes drawn for them
  #drawn = null;

  // Inside a list or quote the outermost of them has the direction, from its first letters: marks stand on its side.
  constructor(parent, line, depth) {
    this.#p = parent.appendChild(el('p', {dir: depth ? null : 'auto'}));
    this.text = line.trimStart();
    this.whole = true;  // nothing of it was committed yet
  }

  continues(line) {
    return line.trim() !== '' && !startsBlock(line);
  }

  mayBeHeader() {
    return this.whole && this.text.includes('|') && !this.text.includes('\n');
  }

  isHeaderFor(line) {
    return this.mayBeHeader() && kDelimiters.test(line) && cells(this.text).length === cells(line).length;
  }

  take(line) {
    this.text += `\n${line.trimStart()}`;
  }

  extend(text) {
    this.text += text;
  }

  leaf() {
    return this;
  }

  draw(partial) {
    const text = partial === '' ? this.text : `${this.text}\n${partial.trimStart()}`;
    if (text === this.#drawn) return;
    const pieces = inlinePieces(text, this.#before);
    // The text only grows at its end, so a piece that ends where it ended before is the same.
    let same = 0;
    while (same < pieces.length && same < this.#tail.length && isSame(pieces[same], this.#tail[same])) ++same;
    for (const {drawn} of this.#tail.splice(same)) drawn.remove();
    for (const piece of pieces.slice(same)) this.#tail.push({...piece, drawn: built(piece.node)});
    this.#p.append(...this.#tail.slice(same).map(({drawn}) => drawn));
    this.#drawn = text;
    // What lies further back than anything still to come can reach is done.
    if (this.text.length < 3 * kReach) return;
    const safe = pieces.findLastIndex(({end}) => end < this.text.length - 2 * kReach - 10);  // a link: text and address
    if (safe < 0) return;
    const {end} = pieces[safe];
    this.#tail.splice(0, safe + 1);
    for (const piece of this.#tail) piece.end -= end;
    this.#before = this.text[end - 1];
    this.text = this.text.slice(end);
    this.#drawn = null;
    this.whole = false;
  }

  end() {
    this.text = this.text.trimEnd();
    this.draw('');
  }

  remove() {
    this.#p.remove();
  }
}

class Heading {
  constructor(parent, level, text) {
    let end = text.trimEnd().length;  // "# Title ##"
    while (text[end - 1] === '#') --end;
    const title = end === 0 || /\s/.test(text[end - 1]) ? text.slice(0, end) : text;
    // The page has h1 and h2; an answer's own headings come below them.
    parent.append(el(`h${Math.min(level + 2, 6)}`, {dir: 'auto', class: `level-${level}`}, inlineNodes(title.trim())));
  }
  continues() {
    return false;
  }
  draw() {}
  end() {}
}

class Rule {
  constructor(parent) {
    parent.append(el('hr'));
  }
  continues() {
    return false;
  }
  draw() {}
  end() {}
}

class Code {
  #code;
  #text = [];                              // lines, for copying
  #shown = null;                           // the text node that grows; appendData keeps the cost at what is added
  #preview = document.createTextNode('');  // the line that is still arriving

  constructor(parent, {mark, name, indent}) {
    this.fence = mark;
    this.indent = indent;
    this.closed = false;
    const copy = el('button', {type: 'button', class: 'quiet-button', 'aria-label': 'Copy code',
                               onclick: () => copyFrom(copy, this.#text.join('\n'))}, icon('copy'), 'Copy');
    this.#code = el('code', {}, this.#preview);
    parent.append(el('div', {class: 'code'}, el('div', {class: 'code-head'}, el('span', {}, name || 'text'), copy),
                     el('pre', {tabindex: 0, dir: 'ltr', role: 'region', 'aria-label': `Code, ${name || 'text'}`}, this.#code)));
  }

  #closes(line) {
    const mark = /^ {0,3}(`{3,}|~{3,})[ \t]*$/.exec(line);
    return mark !== null && mark[1][0] === this.fence[0] && mark[1].length >= this.fence.length;
  }

  continues() {
    return !this.closed;
  }

  take(line) {
    if (this.#closes(line)) {
      this.closed = true;
      return;
    }
    const first = this.#text.length === 0;
    this.#text.push(this.#unindented(line));
    this.#show((first ? '' : '\n') + this.#text.at(-1));
  }

  extend(text) {
    this.#text[this.#text.length - 1] += text;
    this.#show(text);
  }

  leaf() {
    return this.closed ? null : this;
  }

  #unindented(line) {
    let cut = 0;
    while (cut < this.indent && line[cut] === ' ') ++cut;
    return line.slice(cut);
  }

  #show(text) {
    this.#preview.data = '';
    for (const part of visibleControls(text)) {
      if (typeof part !== 'string') {
        this.#preview.before(part);
        this.#shown = null;
      } else if (this.#shown && this.#shown.length < 8000) {
        this.#shown.appendData(part);
      } else {
        this.#shown = document.createTextNode(part);
        this.#preview.before(this.#shown);
      }
    }
  }

  draw(partial) {
    const mayClose = /^ {0,3}(`+|~+)[ \t]*$/.test(partial);
    const line = mayClose ? '' : this.#unindented(partial);
    this.#preview.data = line && this.#text.length ? `\n${line}` : line;
  }

  end() {
    this.#preview.data = '';
  }
}

class Quote {
  constructor(parent, line, depth) {
    const quote = parent.appendChild(el('blockquote', {dir: depth ? null : 'auto'}));
    this.inner = new Blocks(quote, depth + 1);
    this.take(line);
  }

  continues(line) {
    return kQuote.test(line) || this.inner.continuesParagraph(line);
  }

  take(line) {
    this.inner.line(line.replace(kQuote, ''));
  }

  leaf() {
    return this.inner.leaf();
  }

  draw(partial) {
    this.inner.draw(partial.replace(kQuote, ''));
  }

  end() {
    this.inner.end();
  }
}

class List {
  #list;
  #ordered;
  #indent;         // of the marks
  #content;        // where an item's text starts
  #blank = false;  // the last line was blank
  #ghost = null;   // an item whose first line is still arriving

  constructor(parent, line, depth) {
    const [, indent, mark] = kItem.exec(line);
    this.depth = depth;
    this.#ordered = /\d/.test(mark);
    this.#indent = indent.length;
    this.#list = el(this.#ordered ? 'ol' : 'ul', {dir: depth ? null : 'auto'});
    if (this.#ordered && parseInt(mark, 10) !== 1) this.#list.setAttribute('start', String(parseInt(mark, 10)));
    parent.append(this.#list);
    this.#startItem(line);
  }

  #isItem(line) {
    const item = kItem.exec(line);
    return item !== null && /\d/.test(item[2]) === this.#ordered && item[1].length < this.#indent + 2 && !kRule.test(line);
  }

  #isInside(line) {
    return /^ */.exec(line)[0].length >= Math.min(this.#content, this.#indent + 2);
  }

  continues(line) {
    if (line.trim() === '' || this.#isInside(line) || this.#isItem(line)) return true;
    return !this.#blank && this.inner.continuesParagraph(line);
  }

  take(line) {
    this.#dropGhost();
    if (this.#isItem(line)) {
      this.inner.end();
      this.#startItem(line);
      return;
    }
    this.#blank = line.trim() === '';
    this.inner.line(this.#inside(line));
  }

  #inside(line) {
    const spaces = /^ */.exec(line)[0].length;
    return line.slice(Math.min(spaces, this.#content));
  }

  #startItem(line) {
    const made = this.#item(line);
    this.#list.append(made.li);
    this.inner = made.inner;
    this.#content = made.content;
    this.#blank = false;
  }

  #item(line) {
    const [all, indent, mark, space] = kItem.exec(line);
    const content = indent.length + mark.length + Math.min((space ?? ' ').length, 4);
    let text = line.slice(Math.min(content, all.length));
    const li = el('li');
    const task = /^\[([ xX])\] +/.exec(text);
    if (task) {
      text = text.slice(task[0].length);
      li.className = 'task';
      li.append(el('input', {type: 'checkbox', disabled: true, checked: task[1] !== ' ',
                             'aria-label': task[1] === ' ' ? 'to do' : 'done'}));
    }
    const inner = new Blocks(li, this.depth + 1);
    inner.line(text);
    return {li, inner, content};
  }

  #dropGhost() {
    this.#ghost?.remove();
    this.#ghost = null;
  }

  leaf() {
    return this.inner.leaf();
  }

  draw(partial) {
    this.#dropGhost();
    if (partial === '' || !this.#isItem(partial)) {
      this.inner.draw(this.#inside(partial));
      return;
    }
    this.inner.draw('');
    const made = this.#item(partial);
    made.inner.draw('');
    this.#ghost = made.li;
    this.#list.append(made.li);
  }

  end() {
    this.#dropGhost();
    this.inner.end();
  }
}

class Table {
  #body = el('tbody');
  #align;
  #ghost = null;

  constructor(parent, header, delimiters) {
    this.#align = cells(delimiters).map((cell) => (/^:-+:$/.test(cell) ? 'center' : /-:$/.test(cell) ? 'end' : 'start'));
    parent.append(el('div', {class: 'table', tabindex: 0, role: 'region', 'aria-label': 'Table'},
                     el('table', {}, el('thead', {}, this.#row(header, 'th')), this.#body)));
  }

  #row(line, tag) {
    const texts = cells(line);
    return el('tr', {}, this.#align.map((align, i) =>
        el(tag, {class: `align-${align}`, dir: 'auto', scope: tag === 'th' ? 'col' : null}, inlineNodes(texts[i] ?? ''))));
  }

  continues(line) {
    return line.includes('|') && !startsBlock(line);
  }

  take(line) {
    this.draw('');
    this.#body.append(this.#row(line, 'td'));
  }

  draw(partial) {
    this.#ghost?.remove();
    this.#ghost = partial === '' ? null : this.#body.appendChild(this.#row(partial, 'td'));
  }

  end() {
    this.draw('');
  }
}

// The cells of a table's line: parted by |, except where it is escaped or inside code.
function cells(line) {
  const found = [''];
  let code = false;
  const text = line.trim().replace(/^\|/, '').replace(/(?<!\\)\|$/, '');
  for (let i = 0; i < text.length; ++i) {
    if (text[i] === '\\' && text[i + 1] === '|') found[found.length - 1] += '|', ++i;
    else if (text[i] === '|' && !code && found.length < kColumns) found.push('');
    else {
      if (text[i] === '`') code = !code;
      found[found.length - 1] += text[i];
    }
  }
  return found.map((cell) => cell.trim());
}
