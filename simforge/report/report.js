const shown = { dimension: "", label: "", words: "" };
function filter() {
  for (const one of document.querySelectorAll("#pairs article")) {
    const fits = (!shown.dimension || one.dataset.dimension === shown.dimension)
      && (!shown.label || one.dataset.label === shown.label)
      && one.textContent.toLowerCase().includes(shown.words);
    one.hidden = !fits;
  }
  const left = document.querySelectorAll("#pairs article:not([hidden])").length;
  document.getElementById("left").textContent = String(left);
}
for (const name of ["dimension", "label"]) {
  document.getElementById(name).addEventListener("change", (event) => { shown[name] = event.target.value; filter(); });
}
document.getElementById("words").addEventListener("input", (event) => {
  shown.words = event.target.value.toLowerCase();
  filter();
});
