// React 18 sets attributes on custom elements, never properties or listeners: those take a ref.

import { StrictMode, createElement, useEffect, useRef, useState } from "react";
import { createRoot } from "react-dom/client";
import { getToken, loaded, options } from "./host.js";

function Log({ theme }) {
  const ref = useRef(null);
  useEffect(() => {
    const log = ref.current;
    log.getToken = getToken;
    log.addEventListener("audit-loaded", loaded);
    return () => log.removeEventListener("audit-loaded", loaded);
  }, []);
  return createElement("audit-log", { ...options, theme, ref });
}

function Dashboard() {
  const [theme, setTheme] = useState(options.theme);
  const [shown, setShown] = useState(true);
  return [
    createElement("button", { key: "dark", onClick: () => setTheme("dark") }, "Dark"),
    createElement("button", { key: "remove", onClick: () => setShown(false) }, "Remove"),
    createElement("button", { key: "restore", onClick: () => setShown(true) }, "Restore"),
    shown && createElement(Log, { key: "log", theme }),
  ];
}

createRoot(document.getElementById("app")).render(createElement(StrictMode, null, createElement(Dashboard)));
