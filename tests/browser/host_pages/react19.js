// React 19 sets properties where the element has them, and takes custom events as `on` and their name.

import { StrictMode, createElement, useState } from "react";
import { createRoot } from "react-dom/client";
import { getToken, loaded, options } from "./host.js";

function Dashboard() {
  const [theme, setTheme] = useState(options.theme);
  const [shown, setShown] = useState(true);
  return [
    createElement("button", { key: "dark", onClick: () => setTheme("dark") }, "Dark"),
    createElement("button", { key: "remove", onClick: () => setShown(false) }, "Remove"),
    createElement("button", { key: "restore", onClick: () => setShown(true) }, "Restore"),
    shown && createElement("audit-log", { key: "log", ...options, theme, getToken, "onaudit-loaded": loaded }),
  ];
}

createRoot(document.getElementById("app")).render(createElement(StrictMode, null, createElement(Dashboard)));
