// What a screen reader hears of an answer that is being written: whole sentences, some seconds apart. A live region on
// the text itself would be read out again with every token.
import {el} from './dom.js';

const kEveryMs = 2000;

export class Announcer {
  #text = '';
  #timer = 0;

  constructor(region) {
    this.region = region;
  }

  say(text) {
    this.region.append(el('p', {dir: 'auto'}, text));
    while (this.region.childElementCount > 6) this.region.firstChild.remove();
  }

  add(text) {
    this.#text += text;
    this.#timer ||= setTimeout(() => {
      this.#timer = 0;
      const end = Math.max(this.#text.lastIndexOf('\n'), this.#text.lastIndexOf('. '), this.#text.lastIndexOf('。'),
                           this.#text.lastIndexOf('? '), this.#text.lastIndexOf('! '));
      if (end < 0) return;
      this.#speak(this.#text.slice(0, end + 1));
      this.#text = this.#text.slice(end + 1);
    }, kEveryMs);
  }

  end(text) {
    clearTimeout(this.#timer);
    this.#timer = 0;
    if (this.#text) this.#speak(this.#text);
    this.#text = '';
    if (text) this.say(text);
  }

  #speak(markdown) {
    const plain = markdown.replace(/[*_`#>|~]+/g, ' ').trim();
    if (plain) this.say(plain);
  }
}
