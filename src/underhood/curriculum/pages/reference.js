// Reference pages: tells the style sheet that scripts run, so that the switch of the theme is shown.

document.documentElement.classList.add("js");
