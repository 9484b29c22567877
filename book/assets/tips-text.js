window.bsTips = {};
