// Vue sets properties where the element has them; `.getToken` asks for one in any case.

import { createApp, h, ref } from "vue";
import { getToken, loaded, options } from "./host.js";

const Dashboard = {
  setup() {
    const theme = ref(options.theme);
    const shown = ref(true);
    return () => [
      h("button", { onClick: () => (theme.value = "dark") }, "Dark"),
      h("button", { onClick: () => (shown.value = false) }, "Remove"),
      h("button", { onClick: () => (shown.value = true) }, "Restore"),
      shown.value &&
        h("audit-log", { ...options, theme: theme.value, ".getToken": getToken, onAuditLoaded: loaded }),
    ];
  },
};

createApp(Dashboard).mount("#app");
