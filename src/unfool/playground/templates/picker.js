element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-key]");
  if (!button) return;
  for (const each of element.querySelectorAll("button[data-key]")) each.setAttribute("aria-pressed", each === button);
  props.value = button.dataset.key;
  trigger('pick');
});
