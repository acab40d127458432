// Light, dark, or as the system: the choice stays in this browser.

import { byId, set, text } from './dom.js';

const CHOICES = ['auto', 'light', 'dark'];
const NAMES = { auto: 'Auto', light: 'Light', dark: 'Dark' };
const TELL = { auto: 'as the system', light: 'light', dark: 'dark' };

function read() {
  try {
    const kept = localStorage.getItem('cortado-theme');
    return CHOICES.includes(kept) ? kept : 'auto';
  } catch {
    return 'auto'; // Storage may be forbidden.
  }
}

function show(choice) {
  set(document.documentElement, 'data-theme', choice);
  const button = byId('theme');
  text(button, NAMES[choice]);
  set(button, 'aria-label', `Colours: ${TELL[choice]}`);
}

export function startTheme() {
  let choice = read();
  show(choice);
  byId('theme').addEventListener('click', () => {
    choice = CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length];
    show(choice);
    try {
      localStorage.setItem('cortado-theme', choice);
    } catch {
      // The choice then holds until the page is left.
    }
  });
}
