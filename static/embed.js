// The host's side of embedding: PatEmbed and <pat-embed>.
(() => {
  "use strict";

  const VERSION = "1.0.0";

  globalThis.PatEmbed = { version: VERSION };
})();
