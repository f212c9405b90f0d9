// page.html comes from the back end, so only the script is built.
export default {
  build: { outDir: "public", rollupOptions: { input: "page.tsx", output: { entryFileNames: "page.js" } } },
  publicDir: false,
};
