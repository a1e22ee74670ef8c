// Values as people may safely look at them. Whoever wrote them may have wanted to deceive the eye.

// Controls, and marks that reorder or hide text. Joiners (U+200C, U+200D) stay: scripts and emoji need them.
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]/g;

// Characters of a value in a cell: painting 10,000 takes half a second.
const CELL = 300;

function symbol(character) {
  const code = character.codePointAt(0);
  if (code === 0x0a) return "↵";
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  if (code === 0x7f) return "␡";
  return `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
}

/** A value on one line, with each invisible character as a symbol. */
export const visible = (text) => text.replace(HIDDEN, symbol);

/** The same for a value of several lines: a line that ends shows the symbol, and ends. */
export const visibleLines = (text) => text.replace(HIDDEN, (one) => (one === "\n" ? "↵\n" : symbol(one)));

/** What a cell shows of a value: its beginning, never half a character. */
export function shortened(text) {
  if (text.length <= CELL) return visible(text);
  const whole = /[\ud800-\udbff]/.test(text[CELL - 1]) ? CELL - 1 : CELL;
  return `${visible(text.slice(0, whole))}…`;
}
