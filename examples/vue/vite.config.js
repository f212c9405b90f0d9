import vue from "@vitejs/plugin-vue";

// Vue must not look for a component of this name.
const isCustomElement = (tag) => tag === "pat-embed";

// page.html comes from the back end, so only the script is built.
export default {
  plugins: [vue({ template: { compilerOptions: { isCustomElement } } })],
  build: { outDir: "public", rollupOptions: { input: "page.js", output: { entryFileNames: "page.js" } } },
  publicDir: false,
};
