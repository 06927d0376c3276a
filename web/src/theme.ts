// Light or dark: the system's choice, or the person's.

import { button, say } from "./dom.js";

export function createTheme(onChange: () => void): void {
  const toggle = button("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = (): boolean => {
    const chosen = document.documentElement.dataset["theme"];
    return chosen ? chosen === "dark" : system.matches;
  };
  const show = (): void => {
    say(toggle, isDark() ? "Light theme" : "Dark theme");
    onChange();
  };
  toggle.addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    document.documentElement.dataset["theme"] = theme;
    try {
      localStorage.setItem("unsaid-theme", theme);
    } catch {
      // Storage is blocked: the choice lasts until the page is left.
    }
    show();
  });
  system.addEventListener("change", show);
  show();
}
